"""Answers as labels: accuracy and macro-F1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, proportion_of, references_of

if TYPE_CHECKING:
    from stages.evaluate.metrics.statistic import Array


class Classification(Part):
    """Accuracy and macro-F1; an answer that is not a label, or that hit the length limit, is wrong for every label."""

    kind: Literal["classification"] = "classification"
    labels: tuple[str, ...] = recipe((), "The labels; if empty, those of the references.")
    case: bool = recipe(True, "Whether case is significant.")
    needs_reference: ClassVar[bool] = True

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`accuracy` and `macro_f1`, 0 to 1; a label without answers and references has F1 = 0, as in scikit-learn."""
        given = [self._label(answer_of(p)) if p.ended else None for p in predictions]
        allowed = [[self._label(reference) for reference in references_of(p)] for p in predictions]
        # With several correct labels, the truth is the one that was answered, else the first.
        truths = [answer if answer is not None and answer in right else right[0] for right, answer in zip(allowed, given, strict=True)]
        labels = sorted({self._label(label) for label in self.labels} or set(truths))
        rows = [_counts(truth, answer, labels) for truth, answer in zip(truths, given, strict=True)]
        return [
            proportion_of("accuracy", [truth == answer for truth, answer in zip(truths, given, strict=True)]),
            Statistic("macro_f1", rows, _macro_f1),
        ]

    def _label(self, text: str) -> str:
        return text.strip() if self.case else text.strip().casefold()


def _counts(truth: str, answer: str | None, labels: Sequence[str]) -> list[float]:
    """Flags for each label: true positive, predicted, actual; [3 x labels]."""
    rightly = [float(truth == label == answer) for label in labels]
    return [*rightly, *(float(answer == label) for label in labels), *(float(truth == label) for label in labels)]


def _macro_f1(sums: "Array") -> "Array":
    import numpy as np

    rightly, given, wanted = np.split(sums, 3, axis=-1)
    total = given + wanted
    scores: Array = np.divide(2 * rightly, total, out=np.zeros(total.shape), where=total != 0)
    return scores.mean(axis=-1)
