"""The weighted sum of the updates, truncated to a low rank by SVD."""

from typing import Any, Literal

from engine.core.part import recipe
from stages.merge.combinations.base import Combining


class Svd(Combining):
    """The weighted sum of the updates, truncated to its largest singular values."""

    kind: Literal["svd"] = "svd"
    rank: int | None = recipe(None, "Number of singular values kept; if unset, the largest rank of the adapters.", gt=0)

    def options(self) -> dict[str, Any]:
        """peft's `svd`, with reduced matrices."""
        return {"combination_type": "svd", "svd_rank": self.rank, "svd_full_matrices": False}
