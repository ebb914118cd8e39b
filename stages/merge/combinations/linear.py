"""The weighted sum of the updates."""

from typing import Any, Literal

from stages.merge.combinations.base import Combining


class Linear(Combining):
    """The exact weighted sum of the updates; ranks may differ."""

    kind: Literal["linear"] = "linear"

    def options(self) -> dict[str, Any]:
        """peft's `cat`; its `linear` sums the factors, and the product of the sums is not the sum of the products."""
        return {"combination_type": "cat"}
