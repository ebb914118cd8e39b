"""The interface of layouts."""

from typing import ClassVar

from engine.core.part import Part


class Layout(Part):
    """Layout of rows in a micro-batch; it affects speed and memory, not the gradient of the global batch.

    Members only declare properties: the work is in stages.train.loop.division and stages.train.loop.batches, the same code for all of them,
    so the choice of a member does not change a step's code identity.
    """

    flat: ClassVar[bool] = False
    """Whether rows are concatenated and separated by position ids, instead of padded."""
    grouped: ClassVar[bool] = False
    """Whether rows are grouped by length."""
