"""The step with an experiment's headline numbers: the few by which `dvc metrics` and `dvc exp show` compare it with others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.compile.compilation import Compilation, Subject, locate_below
from engine.core.graph import Step
from engine.spec.headline import headline
from stages import score

if TYPE_CHECKING:
    from engine.spec.sections import Evaluation
    from stages.evaluate.metrics import Metric

_MOST = 4
"""At most so many metrics, besides the validation loss: a row of each experiment fits a terminal."""


def add_headlines(c: Compilation, subject: Subject, evaluation: Step) -> Step:
    """Add the score step of SUBJECT, which reads the metrics of its EVALUATION and of its training."""
    section = subject.spec.experiment.evaluation
    parameters = score.Parameters(metrics=headlines(section), tasks=subject.spec.experiment.evaluated_tasks)
    reads = {"evaluation": evaluation.measured()} | ({"training": subject.trained.measured()} if subject.trained else {})
    locate = locate_below(subject.spec, ("evaluation",))
    where, description = subject.spec.where("evaluation"), f"Headline numbers of {subject.stem}."
    return c.add(Step(f"score-{subject.stem}", score.KIND, parameters, reads, description, where, locate), subject.spec)


def headlines(section: "Evaluation") -> tuple[str, ...]:
    """The names of the headline numbers of an evaluation: the judge's first score, then a value of each metric in the spec's order.

    Metrics of which neither higher nor lower is better are left out if there is another.
    """
    rated = [metric for metric in section.metrics if metric.kind not in score.WITHOUT_BETTER]
    judged = [f"judge_{section.judge.scores[0]}"] if section.judge else []
    shown: Sequence[Metric] = rated or ([] if judged else section.metrics)
    return tuple(dict.fromkeys([*judged, *map(headline, shown)]))[:_MOST]
