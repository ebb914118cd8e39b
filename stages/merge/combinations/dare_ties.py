"""DARE before TIES: elements are dropped at random, the others rescaled, and signs elected."""

from typing import Any, Literal

from engine.core.part import recipe
from stages.merge.combinations.base import ByFactor


class DareTies(ByFactor):
    """Weighted sum of the factors after dropping random elements, rescaling the others, and electing signs."""

    kind: Literal["dare_ties"] = "dare_ties"
    density: float = recipe(0.5, "Share of the elements that is kept at random.", gt=0, le=1)

    def options(self) -> dict[str, Any]:
        """peft's `dare_ties`."""
        return {"combination_type": "dare_ties", "density": self.density}
