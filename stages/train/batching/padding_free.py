"""All rows of a micro-batch one behind another."""

from typing import ClassVar, Literal

from stages.train.batching.layout import Layout


class PaddingFree(Layout):
    """Rows one behind another in one long row without padding; attention stays inside each of them."""

    kind: Literal["padding_free"] = "padding_free"
    flat: ClassVar[bool] = True
