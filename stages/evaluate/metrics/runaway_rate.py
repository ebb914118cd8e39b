"""How often the model continues long after the answer should have ended."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, proportion_of, references_of
from stages.evaluate.metrics.words import words
from stages.rows.segmentation import Segmentation


class RunawayRate(Part):
    """Share of the answers that hit the length limit and are many times longer than their reference: the model has not learned to stop."""

    kind: Literal["runaway_rate"] = "runaway_rate"
    times: float = recipe(2.0, "An answer is a runaway if it has more than this many times the words of its reference.", ge=1)
    segmentation: Segmentation = recipe(
        "unicode",
        "Word segmentation: `unicode` at the word boundaries of UAX 29, one character at a time in scripts without spaces;"
        " `characters`; or `published`, at every character that is not a letter, digit or underscore.",
    )
    environment: ClassVar[tuple[str, ...]] = ("regex",)
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`runaway_rate`, 0 to 1."""
        return [proportion_of("runaway_rate", [not p.ended and self._long(p) for p in predictions])]

    def _long(self, prediction: Prediction) -> bool:
        longest = max(len(words(reference, self.segmentation)) for reference in references_of(prediction))
        return len(words(answer_of(prediction), self.segmentation)) > self.times * longest
