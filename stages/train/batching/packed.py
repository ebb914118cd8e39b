"""Rows in bins of one size."""

from typing import ClassVar, Literal

from engine.core.part import recipe
from stages.train.batching.layout import Layout


class Packed(Layout):
    """Rows laid tightly into bins over a whole epoch; positions restart with each row, and attention stays inside each of them.

    The bins are the mixture's: a global batch of N rows is one of N bins, and which rows share an optimizer step follows from that.
    """

    kind: Literal["packed"] = "packed"
    length: int | None = recipe(None, "Tokens of a bin; none given: tokenization.max_length.", gt=1)
    flat: ClassVar[bool] = True
