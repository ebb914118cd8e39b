"""How often the answer is the reference to the letter."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.part import Part
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, mean_of, reference_of


class ExactMatch(Part):
    """Share of the answers that equal the reference, white space at both ends aside; an answer that never ended cannot match."""

    kind: Literal["exact_match"] = "exact_match"
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`exact_match`, 0 to 1."""
        return [mean_of("exact_match", [p.ended and answer_of(p).strip() == reference_of(p).strip() for p in predictions])]
