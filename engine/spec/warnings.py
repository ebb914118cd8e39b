"""Warnings of `engine check`: what is allowed in a spec but is probably a mistake."""

from collections.abc import Iterable, Iterator, Mapping

from engine.core.errors import Location, Problem
from engine.core.names import BASE
from engine.core.part import Part
from engine.spec.models import ScratchModel
from engine.spec.sections import Spec
from stages.evaluate.metrics.unit_tests import UnitTests
from stages.train.objectives.base import PairObjective

USUAL_RATES: Mapping[str, tuple[float, float]] = {
    "full": (1e-7, 1e-2),
    "lora": (1e-6, 1e-2),
    "qlora": (1e-6, 1e-2),
    "ia3": (1e-4, 1e-1),
    "prefix_tuning": (1e-5, 1e-1),
    "prompt_tuning": (1e-4, 1.0),
}
"""The usual range of learning rates for each method. Papers use: full fine-tuning and pretraining 1e-6 to 6e-3, LoRA 1e-5 to 2e-3 (Hu et
al., 2021, appendix D), IA3 3e-3 (Liu et al., 2022), prefix tuning 5e-5 to 1e-2 (Li and Liang, 2021), prompt tuning 0.3 (Lester et al.,
2021). The ranges are wider, for the small models of tests and tutorials."""


STARTING_RATES: Mapping[str, float] = {"full": 2e-5, "ia3": 3e-3, "prefix_tuning": 1e-2, "prompt_tuning": 3e-2}
"""Where to start with methods for which the default rate, that of LoRA, is not made; docs/reference/defaults.md has the sources."""


_OF_LENGTHS = ("length", "eos_rate")
"""The metrics that tell whether answers run away (engine/results/lengths.py)."""


def advice(specs: Iterable[Spec]) -> list[Problem]:
    """A warning for each probable mistake in SPECS, without duplicates."""
    checks = (_frozen_noise, _odd_rate, _rate_of_another_method, _code_without_isolation, _unwatched_lengths)
    return list(dict.fromkeys(warning for spec in specs for check in checks for warning in check(spec)))


def _frozen_noise(spec: Spec) -> Iterator[Problem]:
    """An adapter on untrained weights learns next to nothing, since the base model stays random."""
    method = spec.experiment.method
    if method and method.makes_adapter and isinstance(spec.experiment.model, ScratchModel):
        what = f"{method.kind} trains an adapter on a model from scratch, whose frozen weights stay random"
        hint = 'use method "full", or start from a trained model: model.experiment, model.path, or model.id with model.revision'
        yield Problem(what, spec.where("training", "method"), hint, "warning")


def _odd_rate(spec: Spec) -> Iterator[Problem]:
    training = spec.experiment.training
    if training is None:
        return
    low, high = USUAL_RATES[training.method.kind]
    if not low <= training.learning_rate <= high:
        what = f"learning_rate = {training.learning_rate:g} is far {'above' if training.learning_rate > high else 'below'} the usual range"
        where = spec.where("training", "learning_rate")
        yield Problem(what, where, f"usual range for {training.method.kind}: {low:g} to {high:g}", "warning")


def _rate_of_another_method(spec: Spec) -> Iterator[Problem]:
    """The default rate is LoRA's: ten times too high for all weights of a pretrained model, and far too low for learned prompts."""
    training, model = spec.experiment.training, spec.experiment.model
    if training is None or isinstance(model, ScratchModel) or "learning_rate" in training.model_fields_set:
        return
    kind = training.method.kind
    if kind in STARTING_RATES:
        what = f"learning_rate is not set, and its default, {training.learning_rate:g}, is meant for LoRA, not for {kind}"
        yield Problem(what, spec.where("training", "method"), f"set training.learning_rate; start with {STARTING_RATES[kind]:g}", "warning")


def _code_without_isolation(spec: Spec) -> Iterator[Problem]:
    """Answers are code that nobody has read."""
    experiment = spec.experiment
    metrics: list[tuple[Part, tuple[str | int, ...]]] = []
    metrics += [(metric, ("evaluation", "metrics", n)) for n, metric in enumerate(experiment.evaluation.metrics)]
    for name, pairs in experiment.pairs.items():
        metrics += [(term.metric, ("pairs", name, "scores", n, "metric")) for n, term in enumerate(pairs.scores)]
    for metric, place in metrics:
        if isinstance(metric, UnitTests) and metric.isolation == "limits":
            what = "unit_tests runs answers of models with limits of time and memory, but with this account's rights and network"
            hint = 'keep this to containers and machines that may be lost; elsewhere set isolation = "bubblewrap"'
            yield Problem(what, spec.where(*place, "isolation"), hint, "warning")


def _unwatched_lengths(spec: Spec) -> Iterator[Problem]:
    """Losses on answers fall while answers run away in length, which only their comparison with those from before shows."""
    training, model, evaluation = spec.experiment.training, spec.experiment.model, spec.experiment.evaluation
    if training is None or not isinstance(training.objective, PairObjective) or isinstance(model, ScratchModel):
        return
    if not spec.experiment.evaluated_tasks:
        return
    start = getattr(model, "experiment", None) or BASE
    lacking = [] if {start, BASE} & set(evaluation.compare) else [f'"{start}" in evaluation.compare']
    lacking += [f'"{kind}" in evaluation.metrics' for kind in _OF_LENGTHS if kind not in {metric.kind for metric in evaluation.metrics}]
    if lacking:
        what = f"nothing compares the lengths of answers with those before {training.objective.kind}, which may make them run away"
        yield Problem(what, spec.where("training", "objective"), f"set {' and '.join(lacking)}", "warning")


def loggers(specs: Iterable[Spec]) -> dict[str, Location]:
    """The loggers in `resources.report_to` of SPECS, each with its first location."""
    found: dict[str, Location] = {}
    for spec in specs:
        for number, name in enumerate(spec.experiment.resources.report_to):
            found.setdefault(name, spec.where("resources", "report_to", number))
    return found
