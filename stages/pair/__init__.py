"""pair: models' answers to the same prompts are scored, and the better and the worse ones become pairs for preference tuning."""

from typing import Literal

from engine.core.part import Kind, Part, recipe
from stages.evaluate.metrics import AnyMetric


class Criterion(Part):
    """One term of the score of an answer."""

    metric: AnyMetric = recipe(description="The metric, computed on each answer alone.")
    value: str = recipe(description="Which of the metric's values counts.")
    weight: float = recipe(1.0, "Factor of the value in the score.")


class Pairing(Part):
    """Which of the scored answers to a prompt become pairs."""

    combine: Literal["best_worst", "all"] = recipe(
        "best_worst",
        "best_worst: the best and the worst answer to each prompt; all: every two of its answers with different scores.",
    )
    min_margin: float = recipe(0.0, "Minimum difference between the scores of a pair; equal scores never make a pair.", ge=0)


class Parameters(Pairing):
    """How answers are scored and paired."""

    task: str = recipe(description="The task whose prompts were answered.")
    scores: tuple[Criterion, ...] = recipe(description="The terms of the score, which is their sum.", min_length=1)


KIND = Kind("pair", "Score models' answers to the same prompts, and pair better with worse ones.", Parameters, environment=("numpy",))
