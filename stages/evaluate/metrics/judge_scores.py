"""Scores that a judge (a chat model) gives to the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from engine.core.part import Name, Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, proportion_of, ratio_of


@dataclass(frozen=True)
class Judged(Prediction):
    """A prediction with the judge's scores."""

    scores: Mapping[str, int] | None = None
    """None if there is no valid judgement."""


class JudgeScores(Part):
    """Mean of each score over the judged answers, and the share of the answers that were judged."""

    kind: Literal["judge"] = "judge"
    scores: tuple[Name, ...] = recipe(description="Names of the scores.", min_length=1)
    lowest: int = recipe(description="Lowest score of the scale.")
    highest: int = recipe(description="Highest score of the scale.")
    needs_reference: ClassVar[bool] = False

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`judge_NAME` of each score, within the scale, and `judged_rate`, 0 to 1."""
        judged = [one.scores if isinstance(one, Judged) else None for one in predictions]
        counts = [found is not None for found in judged]
        means = [ratio_of(f"judge_{name}", [found[name] if found else 0 for found in judged], counts) for name in self.scores]
        return [*means, proportion_of("judged_rate", counts)]
