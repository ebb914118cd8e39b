"""The results of a sweep's points: swept values and metrics, as a table and as lines of a plot."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.core.graph import Graph
from engine.dvc.store import Store
from engine.plan.decide import Action, Plan
from engine.results.table import Result
from engine.spec.notation import dotted, toml

if TYPE_CHECKING:
    from engine.spec.sections import Spec

SEED = "experiment.seed"
VALIDATION_LOSS = "validation_loss"
"""The loss on validation rows at the end of a training, by task."""
HELD_OUT = {"accuracy": "validation_accuracy", "cross_entropy": "validation_cross_entropy"}
"""Names of what trainings measure of validation rows and what compares, unlike losses, whatever the fields of the objective are: the share
of pairs (or judged answers) that the rewards rank right, and the cross entropy of the supervised tokens, without a teacher."""
OF_TRAININGS = (*HELD_OUT.values(), VALIDATION_LOSS)
"""What is measured by trainings, on validation rows; all other metrics are those of evaluations."""
OBJECTIVE = "training.objective"


@dataclass(frozen=True)
class Measured:
    """One value of a point on one task; low and high are None if the metric has no interval."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = f" [{self.low:.2f}, {self.high:.2f}]" if self.low is not None and self.high is not None else ""
        return f"{self.value:.2f}{interval}" if interval else f"{self.value:.4f}"


@dataclass(frozen=True)
class PointResult:
    """One point: its swept values and its results."""

    name: str
    values: Mapping[str, Any]
    """By field, dotted; only fields in which the points differ."""
    metrics: Mapping[str, Mapping[str, Measured]]
    """By metric and task."""
    trained: bool
    """Whether its training is up to date with specs, code and data."""
    evaluated: bool
    trainable: int | None
    """Number of trainable parameters."""


@dataclass(frozen=True)
class Sweep:
    """All points of one spec, in order."""

    name: str
    spec: str
    fields: tuple[str, ...]
    """The fields in which the points differ."""
    points: tuple[PointResult, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every measured metric, those of trainings last, and of these the loss."""
        names = dict.fromkeys(name for point in self.points for name in point.metrics)
        return tuple(sorted(names, key=lambda name: OF_TRAININGS.index(name) if name in OF_TRAININGS else -1))

    @property
    def comparable(self) -> tuple[str, ...]:
        """What trainings measured that compares all points: the validation loss, unless they differ in the objective; then of HELD_OUT."""
        if not self.is_over_objective:
            return (VALIDATION_LOSS,)
        return tuple(name for name in HELD_OUT.values() if all(name in point.metrics for point in self.points))

    @property
    def is_over_objective(self) -> bool:
        """Whether points differ in the objective, so that their losses are different functions."""
        return any(field == OBJECTIVE or field.startswith(f"{OBJECTIVE}.") for field in self.fields)

    def tasks(self, metric: str) -> tuple[str, ...]:
        """The tasks on which METRIC was measured."""
        return tuple(dict.fromkeys(task for point in self.points for task in point.metrics.get(metric, {})))


def sweeps(specs: "Iterable[Spec]", found: Iterable[Result], graph: Graph, store: Store, plan: Plan) -> list[Sweep]:
    """The sweeps among SPECS; FOUND holds the results of all of them."""
    by_file: dict[str, list[Spec]] = {}
    for spec in specs:
        if spec.point and spec.point.labels:
            by_file.setdefault(spec.path, []).append(spec)
    results = {result.experiment: result for result in found}
    return [_sweep(group, results, graph, store, plan) for group in by_file.values()]


def _sweep(specs: "Sequence[Spec]", results: Mapping[str, Result], graph: Graph, store: Store, plan: Plan) -> Sweep:
    values = [{dotted(path): value for path, value in spec.point.values.items()} if spec.point else {} for spec in specs]
    every = sorted({field for point in values for field in point})
    fields = tuple(field for field in every if len({toml(point.get(field)) for point in values}) > 1)
    points = []
    for spec, own in zip(specs, values, strict=True):
        last = "train" if spec.experiment.training else "evaluate"
        measured = store.metrics(graph[f"train-{spec.name}"].metrics) if spec.experiment.training else {}
        metrics = dict(_scores(results.get(spec.name)))
        metrics |= _held_out(spec, measured)
        if isinstance(losses := measured.get(VALIDATION_LOSS), dict):
            metrics[VALIDATION_LOSS] = {task: Measured(float(value)) for task, value in losses.items()}
        trained, evaluated = (plan[graph[f"{kind}-{spec.name}"].name].action is Action.KEEP for kind in (last, "evaluate"))
        points.append(
            PointResult(
                spec.name, {field: own.get(field) for field in fields}, metrics, trained, evaluated, measured.get("trainable_parameters")
            )
        )
    return Sweep(specs[0].stem, specs[0].path, fields, tuple(points))


def _held_out(spec: "Spec", measured: Mapping[str, Any]) -> dict[str, dict[str, Measured]]:
    """What the training of SPEC, with the metrics MEASURED, says of validation rows besides the loss, by metric and task."""
    training = spec.experiment.training
    if training is not None and training.objective.kind == "supervised":
        losses = measured.get(VALIDATION_LOSS)
        known = {task: {"cross_entropy": value} for task, value in losses.items()} if isinstance(losses, dict) else {}
    else:
        known = measured.get("validation") or {}
    found: dict[str, dict[str, Measured]] = {}
    for key, name in HELD_OUT.items():
        if values := {task: Measured(float(of[key])) for task, of in known.items() if key in of}:
            found[name] = values
    return found


def _scores(result: Result | None) -> Iterator[tuple[str, dict[str, Measured]]]:
    """Every metric of RESULT by task, with its interval if it has one."""
    found: dict[str, dict[str, Measured]] = {}
    for task, values in result.scores.items() if result else ():
        for metric, value in values.items():
            if isinstance(value, float):
                around = result.intervals.get(task, {}).get(metric, {}) if result else {}
                found.setdefault(metric, {})[task] = Measured(value, around.get("low"), around.get("high"))
    yield from found.items()


def sweep_table(sweep: Sweep, metric: str, intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the swept fields of each point, METRIC on every task with its interval, and what trainings measured.

    INTERVALS: show them.
    """
    shown = [(name, task) for name in dict.fromkeys((metric, *sweep.comparable, VALIDATION_LOSS)) for task in sweep.tasks(name)]
    columns = ["point", *(short_field(field, sweep.fields) for field in sweep.fields), *(f"{name} {task}" for name, task in shown), "state"]
    rows = []
    for point in sweep.points:
        known = [point.metrics.get(name, {}).get(task) for name, task in shown]
        cells = ["–" if one is None else str(one if intervals else Measured(one.value)) for one in known]
        rows.append([point.name, *map(given, point.values.values()), *cells, _state(point)])
    return columns, rows


def short_field(field: str, fields: Sequence[str]) -> str:
    """The last part of a dotted field, or the whole field if another one has the same last part."""
    last = field.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in fields) == 1 and last != "kind" else field


def given(value: object) -> str:
    """A swept value as tables show it."""
    return "–" if value is None else value if isinstance(value, str) else toml(value)


def _state(point: PointResult) -> str:
    if not point.metrics:
        return "not built"
    return "current" if point.trained and point.evaluated else "stale"


@dataclass(frozen=True)
class Line:
    """One line of a plot: its label, and its points."""

    label: str
    points: tuple[tuple[Any, Measured], ...]
    """The swept field's value, and the measurement at that value."""


def lines(sweep: Sweep, field: str, metric: str) -> list[Line]:
    """METRIC against FIELD: one line for each task and for each combination of the other fields' values."""
    found: dict[str, list[tuple[Any, Measured]]] = {}
    for point in sweep.points:
        others = [f"{short_field(other, sweep.fields)} {given(value)}" for other, value in point.values.items() if other != field]
        for task, measured in point.metrics.get(metric, {}).items():
            if point.values[field] is not None:
                found.setdefault(", ".join([task, *others]), []).append((point.values[field], measured))
    return [Line(label, tuple(points)) for label, points in found.items()]
