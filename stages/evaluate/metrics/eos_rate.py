"""How often the model generated an end token."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.core.part import Part
from stages.evaluate.metrics.statistic import Prediction, Statistic, proportion_of


class EosRate(Part):
    """Share of the answers that end with an end token before the length limit."""

    kind: Literal["eos_rate"] = "eos_rate"
    needs_reference: ClassVar[bool] = False

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`eos_rate`, 0 to 1."""
        return [proportion_of("eos_rate", [p.ended for p in predictions])]
