"""DARE (Yu et al., 2023, arXiv:2311.03099): elements are dropped at random, and the others rescaled."""

from typing import Any, Literal

from engine.core.part import recipe
from stages.merge.combinations.base import ByFactor


class DareLinear(ByFactor):
    """Weighted sum of the factors after dropping random elements and rescaling the others."""

    kind: Literal["dare_linear"] = "dare_linear"
    density: float = recipe(0.5, "Share of the elements that is kept at random.", gt=0, le=1)

    def options(self) -> dict[str, Any]:
        """peft's `dare_linear`."""
        return {"combination_type": "dare_linear", "density": self.density}
