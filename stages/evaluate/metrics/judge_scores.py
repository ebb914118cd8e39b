"""What a chat model that judges the answers says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from engine.core.part import Name, Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, proportion_of, ratio_of


@dataclass(frozen=True)
class Judged(Prediction):
    """An answer with what the judge says of it."""

    scores: Mapping[str, int] | None = None
    """None where the judge gave no valid judgement."""


class JudgeScores(Part):
    """Mean of each score of the judge over the answers that it judged, and the share of the answers that it judged."""

    kind: Literal["judge"] = "judge"
    scores: tuple[Name, ...] = recipe(description="The names of the scores.", min_length=1)
    lowest: int = recipe(description="The worst score.")
    highest: int = recipe(description="The best score.")
    needs_reference: ClassVar[bool] = False

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`judge_NAME` of each score, lowest to highest, and `judged_rate`, 0 to 1."""
        judged = [one.scores if isinstance(one, Judged) else None for one in predictions]
        counts = [found is not None for found in judged]
        means = [ratio_of(f"judge_{name}", [found[name] if found else 0 for found in judged], counts) for name in self.scores]
        return [*means, proportion_of("judged_rate", counts)]
