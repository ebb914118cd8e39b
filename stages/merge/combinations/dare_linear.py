"""DARE (Yu et al., 2023, arXiv:2311.03099): numbers are dropped at random, and the others scaled up."""

from typing import Any, Literal

from engine.core.part import recipe
from stages.merge.combinations.base import ByFactor


class DareLinear(ByFactor):
    """Numbers of each factor drawn at random, scaled up, and their weighted sum."""

    kind: Literal["dare_linear"] = "dare_linear"
    density: float = recipe(0.5, "Share of the numbers that is kept, by chance.", gt=0, le=1)

    def options(self) -> dict[str, Any]:
        """peft's `dare_linear`."""
        return {"combination_type": "dare_linear", "density": self.density}
