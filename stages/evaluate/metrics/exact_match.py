"""How often the answer is the reference to the letter."""

from typing import Literal

from engine.part import Part
from stages.evaluate.metrics.prediction import Prediction, mean


class ExactMatch(Part):
    """Share of the answers that equal the reference, white space at both ends aside; an answer that never ended cannot match."""

    kind: Literal["exact_match"] = "exact_match"

    def score(self, predictions: list[Prediction]) -> dict[str, float]:
        """`exact_match`, 0 to 1."""
        return {"exact_match": mean([float(p.ended and p.answer.strip() == p.reference.strip()) for p in predictions])}
