"""Picks the best point of a sweep by a metric on validation rows, and writes it as a spec that extends the swept one.

Points that differ only in their seed are one choice: its value is the mean over the seeds, and its best seed is written.
Ties (values equal to six digits) go to the fewest trainable parameters, then to the first point.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from engine.core.errors import UserError, did_you_mean
from engine.core.part import NAME_PATTERN
from engine.plan.project import Project, write_text
from engine.results.ranking import LOWER_IS_BETTER, WITHOUT_BETTER
from engine.results.sweeps import OF_TRAININGS, SEED, VALIDATION_LOSS, PointResult, Sweep, given, short_field, sweeps
from engine.results.table import results
from engine.spec.notation import dotted, toml

if TYPE_CHECKING:
    from engine.spec.sections import Spec

DIGITS = 6


@dataclass(frozen=True)
class Question:
    """The criterion for the best point."""

    metric: str | None = None
    task: str | None = None
    """None: the mean over all tasks."""
    direction: str | None = None
    """`max` or `min`; None: the direction of the metric."""


@dataclass(frozen=True)
class Candidate:
    """A point with its value, and the mean over the points that differ from it only in seed."""

    point: PointResult
    value: float
    mean: float
    seeds: int


@dataclass(frozen=True)
class Margin:
    """The difference between the best and the second-best choice, and the noise of that difference."""

    following: Candidate
    difference: float
    noise: float | None
    """Half the width of the 95 % interval of the difference: from the variance over seeds if both choices have several, else from the
    intervals of the values, assumed independent; None if neither is known."""
    source: str
    """What the noise was computed from."""

    @property
    def within(self) -> bool | None:
        """Whether the difference is no larger than the noise; None if that is unknown."""
        return None if self.noise is None else self.difference <= self.noise


@dataclass(frozen=True)
class Choice:
    """The ranked points of a sweep, and the criterion."""

    sweep: Sweep
    metric: str
    tasks: tuple[str, ...]
    direction: str
    candidates: tuple[Candidate, ...]
    """Best first."""

    @property
    def best(self) -> Candidate:
        """The point that is written."""
        return self.candidates[0]

    @property
    def equals(self) -> int:
        """The number of choices that tie with the best, itself included; points that differ only in seed are one choice."""
        return len({_but_seed(one.point) for one in self.candidates if round(one.mean, DIGITS) == round(self.best.mean, DIGITS)})

    @property
    def margin(self) -> "Margin | None":
        """The margin of the best choice over the second-best; None if there is no other."""
        own = _but_seed(self.best.point)
        following = next((one for one in self.candidates if _but_seed(one.point) != own), None)
        if following is None:
            return None
        groups = [[c for c in self.candidates if _but_seed(c.point) == _but_seed(one.point)] for one in (self.best, following)]
        if all(len(group) > 1 for group in groups):
            noise, source = 1.96 * sum(variance(c.value for c in group) / len(group) for group in groups) ** 0.5, "the seeds"
        else:
            halves = [self._half(one.point) for one in (self.best, following)]
            if None in halves:
                return Margin(following, abs(self.best.mean - following.mean), None, "")
            noise, source = sum(half * half for half in halves if half is not None) ** 0.5, "the intervals"
        return Margin(following, abs(self.best.mean - following.mean), noise, source)

    def _half(self, point: PointResult) -> float | None:
        """Half the width of the interval of the mean over tasks, assumed independent; None if a value has no interval."""
        measured = [point.metrics[self.metric][task] for task in self.tasks]
        halves = [(one.high - one.low) / 2 for one in measured if one.low is not None and one.high is not None]
        return sum(half * half for half in halves) ** 0.5 / len(halves) if len(halves) == len(measured) else None

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values."""
        margin = self.margin
        noise = margin and {
            "next": margin.following.point.name,
            "difference": margin.difference,
            "noise": margin.noise,
            "within_noise": margin.within,
        }
        points = [{"point": c.point.name, "values": dict(c.point.values), "value": c.value, "mean": c.mean} for c in self.candidates]
        head = {"sweep": self.sweep.name, "spec": self.sweep.spec, "metric": self.metric, "tasks": list(self.tasks)}
        return head | {"direction": self.direction, "points": points, "best": self.best.point.name, "margin": noise}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows, the best point first."""
        seeds = self.best.seeds > 1
        fields = (short_field(field, self.sweep.fields) for field in self.sweep.fields)
        columns = ["point", *fields, self.metric, *(["mean over seeds"] if seeds else [])]
        rows = [
            [c.point.name, *map(given, c.point.values.values()), f"{c.value:.6g}", *([f"{c.mean:.6g}"] if seeds else [])]
            for c in self.candidates
        ]
        return columns, rows


def chosen(spec: "Spec", sweep: Sweep, question: Question) -> Choice:
    """Rank the points of SWEEP, of which SPEC is one; raises UserError if a point lacks a current value of the metric."""
    metric = _metric(spec, sweep, question.metric)
    tasks = _tasks(sweep, metric, question.task)
    direction = question.direction or _direction(metric)
    return Choice(sweep, metric, tasks, direction, _ranked(_candidates(sweep, metric, tasks), direction))


def pick(project: Project, target: Path, question: Question, output: Path | None, force: bool) -> tuple[Choice, Path]:
    """Write the best point of the sweep TARGET as a spec; raises UserError if TARGET has no sweep or a point has no value."""
    named = project.chosen([target])
    if len({spec.path for spec in named}) != 1 or not (named[0].point and named[0].point.labels):
        raise UserError(f"{target} has no sweep with several points", hint="see docs/how-to/sweep.md")
    specs = {spec.name: spec for spec in project.specs if spec.path == named[0].path}
    path = _output(project, named[0], output, force)
    store, plan = project.store(), project.plan()
    (sweep,) = sweeps(specs.values(), results(specs.values(), project.graph, store, plan), project.graph, store, plan)
    choice = chosen(named[0], sweep, question)
    write_text(path, spec_text(project.root, specs[choice.best.point.name], path, choice))
    return choice, path


def _output(project: Project, spec: "Spec", output: Path | None, force: bool) -> Path:
    """The path of the spec to write; checked before anything is read."""
    path = output.resolve() if output else (project.root / spec.path).with_name(f"{spec.stem}-best.toml")
    if not path.is_relative_to(project.root):
        raise UserError(f"{path} is outside the workspace {project.root}", hint="a spec can extend only files in its workspace")
    if path.suffix != ".toml" or not re.fullmatch(NAME_PATTERN, path.stem):
        hint = "use lower-case letters and digits, separated by '-' or '_', and the suffix .toml; the experiment takes this name"
        raise UserError(f"{path.name} is not a valid name for a spec", hint=hint)
    relative = path.relative_to(project.root).as_posix()
    if other := next((other for other in project.specs if path.stem in (other.name, other.stem) and other.path != relative), None):
        raise UserError(
            f"the name '{path.stem}' is taken by {other.path}", other.where("experiment", "name"), "give another file with --output"
        )
    if path.exists() and not force:
        raise UserError(f"{relative} already exists", hint="overwrite it with --force, or give another file with --output")
    return path


def _metric(spec: "Spec", sweep: Sweep, wanted: str | None) -> str:
    """The metric to rank by: on validation rows only, since ranking by test rows would leave no unseen rows to report on."""
    build = f"run: engine build {spec.path}"
    on_validation = spec.experiment.evaluation.split == "validation"
    known = [name for name in sweep.metrics if on_validation or name in OF_TRAININGS]
    if wanted is None:
        wanted = next((name for name in known if name not in OF_TRAININGS or name in sweep.comparable), VALIDATION_LOSS)
    if wanted == VALIDATION_LOSS and sweep.is_over_objective and sweep.metrics:
        what = f"the points of '{sweep.name}' differ in training.objective, and losses of different objectives do not compare"
        names = [*sweep.comparable, *(name for name in known if name not in OF_TRAININGS)]
        hint = f"pick by {' or '.join(names)}" if names else f'set evaluation.split = "validation" in {spec.path} and {build}'
        raise UserError(what, spec.where("training"), hint)
    if wanted in known:
        return wanted
    if wanted in sweep.metrics:
        what = f"'{wanted}' was measured on test rows: picking by it would leave no unseen rows to evaluate the best point on"
        others = " or ".join(sweep.comparable) or VALIDATION_LOSS
        hint = f'set evaluation.split = "validation" in {spec.path} and rebuild, or pick by {others}'
        raise UserError(what, spec.where("evaluation"), hint)
    if not sweep.metrics:
        raise UserError(f"no point of the sweep '{sweep.name}' is built yet", hint=build)
    if wanted == VALIDATION_LOSS and any(point.trained for point in sweep.points):
        what = f"the trainings of '{sweep.name}' have no {wanted}: their tasks have no validation rows"
        raise UserError(what, spec.where("tasks"), "raise tasks.<task>.split.validation")
    # The metrics of points that are out of date say nothing about those that a build will measure.
    current = known and all(point.trained and point.evaluated for point in sweep.points)
    raise UserError(f"no point of '{sweep.name}' has the metric '{wanted}'", hint=did_you_mean(wanted, known) if current else build)


def _tasks(sweep: Sweep, metric: str, wanted: str | None) -> tuple[str, ...]:
    tasks = sweep.tasks(metric)
    if wanted and wanted not in tasks:
        raise UserError(f"{metric} was not measured on task '{wanted}'", hint=did_you_mean(wanted, tasks))
    return (wanted,) if wanted else tasks


def _direction(metric: str) -> str:
    if metric in WITHOUT_BETTER:
        raise UserError(f"{metric} has no direction: neither higher nor lower is better in general", hint="give --max or --min")
    return "min" if metric in LOWER_IS_BETTER else "max"


def _candidates(sweep: Sweep, metric: str, tasks: Sequence[str]) -> list[Candidate]:
    """Every point with its value; raises UserError if a point has no value or an outdated one."""
    lacking = [point.name for point in sweep.points if not _measures(point, metric, tasks)]
    if lacking:
        what = f"{len(lacking)} of {len(sweep.points)} points have no current {metric} on {', '.join(tasks)}: {', '.join(lacking)}"
        raise UserError(what, hint=f"run: engine build {sweep.spec}")
    values = {point.name: fmean(point.metrics[metric][task].value for task in tasks) for point in sweep.points}
    groups: dict[str, list[str]] = {}
    for point in sweep.points:
        groups.setdefault(_but_seed(point), []).append(point.name)
    found = []
    for point in sweep.points:
        alike = groups[_but_seed(point)]
        found.append(Candidate(point, values[point.name], fmean(values[name] for name in alike), len(alike)))
    return found


def _measures(point: PointResult, metric: str, tasks: Sequence[str]) -> bool:
    current = point.trained if metric in OF_TRAININGS else point.evaluated
    return current and all(task in point.metrics.get(metric, {}) for task in tasks)


def _but_seed(point: PointResult) -> str:
    return toml({field: value for field, value in point.values.items() if field != SEED and value is not None})


def _ranked(candidates: Sequence[Candidate], direction: str) -> tuple[Candidate, ...]:
    sign = 1 if direction == "min" else -1

    def key(candidate: Candidate) -> tuple[float, float, float]:
        return (round(sign * candidate.mean, DIGITS), candidate.point.trainable or 0, round(sign * candidate.value, DIGITS))

    return tuple(sorted(candidates, key=key))


def spec_text(root: Path, spec: "Spec", path: Path, choice: Choice) -> str:
    """The text of a spec at PATH that extends the swept one with the values of the point SPEC, and is evaluated on test rows."""
    assert spec.point
    best, by = choice.best, f"{choice.metric} ({choice.direction}, on {', '.join(choice.tasks)})"
    values = {dotted(key): value for key, value in spec.point.values.items()}
    seeds = f", mean of {best.seeds} seeds {best.mean:.6g}" if best.seeds > 1 else ""
    lines = [
        f"# The best point of {spec.path} by {by}: {spec.name}, {best.value:.6g}{seeds}. Written by `engine pick`.",
        f"extends = [{toml(os.path.relpath(root / spec.path, path.parent))}]",
        "sweep = false",
        "",
        f"experiment.name = {toml(path.stem)}",
        *(f"{field} = {toml(value)}" for field, value in values.items()),
    ]
    lines += ['evaluation.split = "test"'] if spec.experiment.evaluation.split != "test" else []
    return "\n".join(lines) + "\n"
