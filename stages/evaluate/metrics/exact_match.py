"""How often the answer equals the reference."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.core.part import Part
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, proportion_of, references_of


class ExactMatch(Part):
    """Share of the answers that equal a reference after stripping; an answer that hit the length limit never matches."""

    kind: Literal["exact_match"] = "exact_match"
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`exact_match`, 0 to 1."""
        return [proportion_of("exact_match", [p.ended and _matches(p) for p in predictions])]


def _matches(prediction: Prediction) -> bool:
    answer = answer_of(prediction).strip()
    return any(answer == reference.strip() for reference in references_of(prediction))
