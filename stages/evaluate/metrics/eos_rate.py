"""How often the model ended by itself."""

from typing import Literal

from engine.part import Part
from stages.evaluate.metrics.prediction import Prediction, mean


class EosRate(Part):
    """Share of the answers that end with the end-of-sequence token before the limit."""

    kind: Literal["eos_rate"] = "eos_rate"

    def score(self, predictions: list[Prediction]) -> dict[str, float]:
        """`eos_rate`, 0 to 1."""
        return {"eos_rate": mean([float(p.ended) for p in predictions])}
