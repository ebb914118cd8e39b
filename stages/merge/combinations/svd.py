"""The weighted sum of the updates, cut to a low rank by its singular values."""

from typing import Any, Literal

from engine.core.part import recipe
from stages.merge.combinations.base import Combining


class Svd(Combining):
    """The weighted sum of the updates, of which only the largest singular values are kept."""

    kind: Literal["svd"] = "svd"
    rank: int | None = recipe(None, "How many singular values are kept; none given: the largest rank of the adapters.", gt=0)

    def options(self) -> dict[str, Any]:
        """peft's `svd`, without the vectors that would be thrown away."""
        return {"combination_type": "svd", "svd_rank": self.rank, "svd_full_matrices": False}
