"""Length of the answers."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.core.part import Part
from stages.evaluate.metrics.statistic import Prediction, Statistic, mean_of


class Length(Part):
    """Mean number of tokens per answer, without the end token."""

    kind: Literal["length"] = "length"
    needs_reference: ClassVar[bool] = False

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`length`, in tokens."""
        return [mean_of("length", [p.tokens for p in predictions])]
