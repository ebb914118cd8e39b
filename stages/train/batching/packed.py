"""Rows packed into bins of fixed size."""

from typing import ClassVar, Literal

from engine.core.part import recipe
from stages.train.batching.layout import Layout


class Packed(Layout):
    """Rows packed into bins over a whole epoch; positions restart with each row, and attention does not cross rows.

    The mixture packs the bins: a global batch of N rows is one of N bins, which decides the rows that share an optimizer step.
    """

    kind: Literal["packed"] = "packed"
    length: int | None = recipe(None, "Tokens per bin; if unset, tokenization.max_length.", gt=1)
    flat: ClassVar[bool] = True
