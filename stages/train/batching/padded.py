"""Padded rows grouped by length, to reduce padding."""

from typing import ClassVar, Literal

from stages.train.batching.layout import Layout


class Padded(Layout):
    """Rows grouped by length, padded on the right to the longest of the micro-batch.

    Grouped within each global batch, not over the whole split: the mixture still decides which rows share an optimizer step, so this choice
    does not affect the gradient of a step, and the lengths of rows do not vary systematically from step to step.
    """

    kind: Literal["padded"] = "padded"
    grouped: ClassVar[bool] = True
