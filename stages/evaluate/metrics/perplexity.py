"""How likely the model finds the references: loss per token, and its exponential."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import Part
from stages.evaluate.metrics.statistic import Prediction, Statistic, ratio, ratio_of

if TYPE_CHECKING:
    from stages.evaluate.metrics.statistic import Array


class Perplexity(Part):
    """Loss per supervised token of the references (the end-of-sequence token is one), over all rows, and its exponential."""

    kind: Literal["perplexity"] = "perplexity"
    needs_reference: ClassVar[bool] = True
    needs_likelihood: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`loss`, in nats per token, and `perplexity`."""
        loss = ratio_of("loss", [p.loss or 0.0 for p in predictions], [p.loss_tokens for p in predictions])
        return [loss, Statistic("perplexity", loss.rows, _exponential)]


def _exponential(sums: "Array") -> "Array":
    import numpy as np

    # A loss of 700 nats per token is no model's; its exponential would not be a number that JSON can hold.
    return np.exp(np.minimum(ratio(sums), 700.0))
