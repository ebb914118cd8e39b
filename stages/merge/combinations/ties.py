"""TIES (Yadav et al., 2023, arXiv:2306.01708): small numbers are dropped, and of each number the sign that weighs more is kept."""

from typing import Any, Literal

from engine.core.part import recipe
from stages.merge.combinations.base import ByFactor


class Ties(ByFactor):
    """The largest numbers of each factor, signs elected, and their weighted sum."""

    kind: Literal["ties"] = "ties"
    density: float = recipe(0.5, "Share of the largest numbers that is kept.", gt=0, le=1)

    def options(self) -> dict[str, Any]:
        """peft's `ties`."""
        return {"combination_type": "ties", "density": self.density}
