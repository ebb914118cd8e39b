"""Micro-batches of concatenated rows without padding."""

from typing import ClassVar, Literal

from stages.train.batching.layout import Layout


class PaddingFree(Layout):
    """Rows concatenated without padding; attention does not cross rows."""

    kind: Literal["padding_free"] = "padding_free"
    flat: ClassVar[bool] = True
