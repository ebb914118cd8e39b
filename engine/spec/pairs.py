"""The section `[pairs.<name>]`: answers of models to the prompts of a task, and what makes one answer better than another."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Name, Part, named, recipe
from stages.evaluate.metrics import Given
from stages.pair import Pairing
from stages.predict.decoding import Decoding
from stages.predict.decoding.sample import Sample


class ByJudge(Part):
    """The judge of `[evaluation.judge]`: every answer is scored once, whatever pairs it is in."""

    kind: Literal["judge"] = "judge"


class Criterion(Part):
    """One term of the score of an answer; the score is the sum of all terms."""

    metric: Annotated[Given | ByJudge, Field(discriminator="kind"), named] = recipe(
        description="A metric, computed on each answer alone, or `judge`: the scores of `[evaluation.judge]`."
    )
    value: str | None = recipe(
        None,
        "Which of the metric's values counts, such as `rouge1`, or which of the judge's scores; default: the one that stands for the "
        "metric in headlines, the judge's first.",
    )
    weight: float = recipe(1.0, "Factor of the value; negative if lower values are better, as for `length`.")

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        if getattr(self.metric, "needs_likelihood", False):
            message = "{kind} measures the reference, not the answer: score answers by another metric"
            raise PydanticCustomError("likelihood", message, {"kind": self.metric.kind, "at": ("metric",)})
        if not self.weight:
            raise PydanticCustomError("weight", "a term with the weight 0 has no effect: remove it", {"at": ("weight",)})
        return self


class Pairs(Pairing):
    """Pairs of answers that models of this workspace give to the prompts of a task, or several samples of one model."""

    task: Name = recipe(description="The task whose train and validation rows are answered; its test rows are not.")
    experiments: tuple[Name, ...] = recipe(description="The experiments whose models answer.", min_length=1)
    samples: int = recipe(1, "Number of answers of each model to each prompt; the seeds are `decoding.seed` and the following ones.", gt=0)
    decoding: Decoding = recipe(Sample(), "Decoding strategy of the answers.")
    rows: int | None = recipe(None, "Answer only this many rows (chosen by content hash).", gt=0)
    scores: tuple[Criterion, ...] = recipe(description="The terms of an answer's score.", min_length=1)

    @model_validator(mode="after")
    def _different_answers(self) -> Self:
        if len(set(self.experiments)) < len(self.experiments):
            raise PydanticCustomError("named_twice", "an experiment is listed twice: raise samples instead", {"at": ("experiments",)})
        if self.samples > 1 and not isinstance(self.decoding, Sample):
            message = "all samples of {kind} decoding are equal: set decoding.kind to sample, or samples to 1"
            raise PydanticCustomError("equal_samples", message, {"kind": self.decoding.kind, "at": ("samples",)})
        return self
