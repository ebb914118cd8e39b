"""Padded rows in the mixture's order."""

from typing import Literal

from stages.train.batching.layout import Layout


class Unsorted(Layout):
    """Rows in the mixture's order, padded on the right to the longest of the micro-batch."""

    kind: Literal["none"] = "none"
