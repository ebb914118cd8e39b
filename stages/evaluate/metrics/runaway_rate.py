"""How often the model goes on long after the answer should have ended."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, mean_of, reference_of
from stages.evaluate.metrics.words import words


class RunawayRate(Part):
    """Share of the answers that never ended and have many times the words of their reference: what a model without a learnt end does."""

    kind: Literal["runaway_rate"] = "runaway_rate"
    times: float = recipe(2.0, "An answer with more than this many times the reference's words runs away.", ge=1)
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`runaway_rate`, 0 to 1."""
        return [mean_of("runaway_rate", [not p.ended and self._long(p) for p in predictions])]

    def _long(self, prediction: Prediction) -> bool:
        return len(words(answer_of(prediction))) > self.times * len(words(reference_of(prediction)))
