"""Rows of about one length together, so that little is padded."""

from typing import ClassVar, Literal

from stages.train.batching.layout import Layout


class Padded(Layout):
    """Rows one below another, grouped by length, padded on the right to the longest of the micro-batch.

    Grouped inside each global batch, not over the whole split: which rows share an optimizer step then stays the mixture's matter,
    so that the gradient of a step does not depend on this choice, and steps of short rows do not follow steps of long ones.
    """

    kind: Literal["padded"] = "padded"
    grouped: ClassVar[bool] = True
