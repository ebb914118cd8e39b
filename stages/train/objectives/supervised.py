"""Cross entropy of the supervised tokens."""

from typing import ClassVar, Literal

from engine.core.part import Part

DECIDES_NO_BYTES = True
"""Not part of a step's identity: it only names the default, whose loss (stages.train.loop.loss) is in the closure of every training."""


class Supervised(Part):
    """Cross entropy of the supervised tokens, averaged over the global batch."""

    kind: Literal["supervised"] = "supervised"
    on_pairs: ClassVar[bool] = False
    on_judged: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    estimates_kl: ClassVar[bool] = False
