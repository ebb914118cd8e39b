"""Loss per token of the references, and perplexity."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import Part
from stages.evaluate.metrics.statistic import Prediction, Statistic, ratio, ratio_of

if TYPE_CHECKING:
    from stages.evaluate.metrics.statistic import Array


class Perplexity(Part):
    """Mean loss over the supervised tokens of all references (end tokens included), and its exponential."""

    kind: Literal["perplexity"] = "perplexity"
    needs_reference: ClassVar[bool] = True
    needs_likelihood: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`loss`, in nats per token, and `perplexity`."""
        loss = ratio_of("loss", [p.loss or 0.0 for p in predictions], [p.loss_tokens for p in predictions])
        return [loss, Statistic("perplexity", loss.rows, _exponential)]


def _exponential(sums: "Array") -> "Array":
    import numpy as np

    # No model has a loss above 700 nats per token; without the bound, the exponential overflows to infinity, which JSON cannot represent.
    return np.exp(np.minimum(ratio(sums), 700.0))
