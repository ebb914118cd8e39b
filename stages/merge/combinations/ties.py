"""TIES (Yadav et al., 2023, arXiv:2306.01708): small elements are dropped, and the majority sign of each element is elected."""

from typing import Any, Literal

from engine.core.part import recipe
from stages.merge.combinations.base import ByFactor


class Ties(ByFactor):
    """Weighted sum of the factors after keeping the largest elements and electing signs."""

    kind: Literal["ties"] = "ties"
    density: float = recipe(0.5, "Share of the elements, by magnitude, that is kept.", gt=0, le=1)

    def options(self) -> dict[str, Any]:
        """peft's `ties`."""
        return {"combination_type": "ties", "density": self.density}
