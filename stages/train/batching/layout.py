"""What the ways of batching have in common."""

from typing import ClassVar

from engine.core.part import Part


class Layout(Part):
    """How rows lie in a micro-batch; it decides speed and memory, not the gradient of the global batch.

    Members say what they are and do nothing by themselves: the work is in stages.train.loop.division and stages.train.loop.batches, which
    are the same code for all of them, so that the choice of a member does not enter the identity through the back door.
    """

    flat: ClassVar[bool] = False
    """Whether rows lie one behind another, told apart by their position ids, and not one below another with padding."""
    grouped: ClassVar[bool] = False
    """Whether rows of about one length are computed together."""
