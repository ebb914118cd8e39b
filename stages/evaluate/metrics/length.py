"""How long the answers are."""

from typing import Literal

from engine.part import Part
from stages.evaluate.metrics.prediction import Prediction, mean


class Length(Part):
    """Mean number of tokens of an answer, the end-of-sequence token aside."""

    kind: Literal["length"] = "length"

    def score(self, predictions: list[Prediction]) -> dict[str, float]:
        """`length`, in tokens."""
        return {"length": mean([float(p.tokens) for p in predictions])}
