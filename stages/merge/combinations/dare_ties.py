"""DARE before TIES: numbers are dropped at random, the others scaled up, and signs elected."""

from typing import Any, Literal

from engine.core.part import recipe
from stages.merge.combinations.base import ByFactor


class DareTies(ByFactor):
    """Numbers of each factor drawn at random, scaled up, signs elected, and their weighted sum."""

    kind: Literal["dare_ties"] = "dare_ties"
    density: float = recipe(0.5, "Share of the numbers that is kept, by chance.", gt=0, le=1)

    def options(self) -> dict[str, Any]:
        """peft's `dare_ties`."""
        return {"combination_type": "dare_ties", "density": self.density}
