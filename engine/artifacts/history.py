"""Compares two git revisions step by step: recipes, artifacts, adapters and metrics; needs no checkout."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from engine.artifacts.paired import Evaluations, Paired, Unpaired, files_needed, paired_between
from engine.core.errors import Location, UserError
from engine.core.graph import ARTIFACTS, METRICS, PLOTS, measured_by
from engine.dvc import dvcfile, git
from engine.dvc.dvcfile import Record
from engine.dvc.store import Store
from engine.identity.provenance import parse
from engine.identity.text import short
from engine.plan.decide import differences
from engine.plan.project import Project
from engine.results.significance import p_name, p_text
from stages import train

WORKING_TREE = "the working tree"
LOST = "not in the cache"
_ABSENT = "none"
_ADAPTER_COLUMNS = ("step", "old", "new")
_METRIC_COLUMNS = ("step", "metric", "old", "new", "difference")
_OVERLAP = "intervals overlap"
_INTERVALS = "[…] behind a value: its interval by itself"
_TESTED = (
    "[…] behind a difference: its interval on the rows that both revisions answered; {p}: a paired permutation test on these rows, "
    "corrected for all comparisons of this metric between the two revisions; significant: {p} < {level}; no p: not tested"
)
_UNTESTED = (
    f"{_OVERLAP}: whether both intervals have a value in common. Where they do not, chance hardly explains the difference; where they "
    "do, it may, and this is no test of it"
)
Interval = tuple[float, float]


@dataclass(frozen=True)
class State:
    """The recipes, records and metrics of one revision, by step name."""

    title: str
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    records: Mapping[str, Record] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """Of evaluations: the interval of a metric, by its name behind that of its task."""
    missing: tuple[str, ...] = ()
    """Files that this revision does not have."""

    @property
    def steps(self) -> tuple[str, ...]:
        """The compiled steps; if nothing is compiled, the recorded ones, some of which may no longer exist."""
        return tuple(self.recipes) or tuple(name for name in self.records if name != dvcfile.RESOLVE)

    @property
    def evaluations(self) -> Evaluations:
        """What the evaluations of this revision have recorded; of a common commit the title says more than a sentence needs."""
        records = {name: record for name, record in self.records.items() if name in self.steps}
        return Evaluations(self.title.partition(",")[0], records, self.metrics)


@dataclass(frozen=True)
class Change:
    """One difference: its step, its subject, and the old and new values (None if absent)."""

    step: str
    subject: str
    old: Any
    new: Any
    old_interval: Interval | None = None
    """Of a metric of an evaluation: the interval of the old value; None if there is none."""
    new_interval: Interval | None = None
    paired: Paired | None = None
    """Of a metric of an evaluation: the test of the difference on the same rows; None if it was not tested."""

    @property
    def intervals_overlap(self) -> bool | None:
        """Whether both intervals have a value in common; None without two intervals. It is no test of the difference on the same rows."""
        if self.old_interval is None or self.new_interval is None:
            return None
        return self.old_interval[0] <= self.new_interval[1] and self.new_interval[0] <= self.old_interval[1]

    @property
    def difference(self) -> float | None:
        """New minus old, where both are numbers."""
        return self.new - self.old if _is_number(self.old) and _is_number(self.new) else None

    @property
    def shown_difference(self) -> str:
        """The difference with its sign, and with its interval if it was tested; empty if there is none."""
        if self.paired:
            return f"{self.paired.difference:+.4g} [{self.paired.low:+.4g}, {self.paired.high:+.4g}]"
        return "" if self.difference is None else f"{self.difference:+.4g}"


@dataclass(frozen=True)
class Changes:
    """Everything that differs between two states."""

    old: State
    new: State
    added: tuple[str, ...]
    removed: tuple[str, ...]
    recipes: tuple[Change, ...]
    artifacts: tuple[Change, ...]
    adapters: tuple[Change, ...]
    metrics: tuple[Change, ...]
    unpaired: tuple[Unpaired, ...] = ()
    """What was not tested of evaluations whose metrics differ."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.recipes or self.artifacts or self.adapters or self.metrics)

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        own = ("step", "subject", "old", "new")
        parts = {
            name: [{key: getattr(change, key) for key in own} for change in getattr(self, name)]
            for name in ("recipes", "artifacts", "adapters")
        }
        return {
            "old": {"revision": self.old.title, "missing": list(self.old.missing)},
            "new": {"revision": self.new.title, "missing": list(self.new.missing)},
            "steps": {"added": list(self.added), "removed": list(self.removed)},
            **parts,
            "metrics": [
                asdict(change) | {"difference": change.difference, "intervals_overlap": change.intervals_overlap} for change in self.metrics
            ],
            "untested": [{"step": one.step, "task": one.task, "why": one.why} for one in self.unpaired],
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """The compared revisions, then steps, recipes and artifacts, one line each."""
        yield f"{self.old.title} → {self.new.title}", "" if self else "no differences"
        for state in (self.old, self.new):
            if state.missing:
                yield f"missing in {state.title}: {', '.join(state.missing)}", ""
        yield from ((f"added     {name}", "") for name in self.added)
        yield from ((f"removed   {name}", "") for name in self.removed)
        yield from ((f"recipe    {c.step}  {c.subject}  {_show(c.old)} → {_show(c.new)}", "") for c in self.recipes)
        yield from ((f"artifact  {c.step}  {_address(c.old)} → {_address(c.new)}", "") for c in self.artifacts)
        for why, found in groupby(sorted(self.unpaired, key=lambda one: one.why), key=lambda one: one.why):
            yield f"untested  {', '.join(one.step + (f' {one.task}' if one.task else '') for one in found)}: {why}", ""

    def tables(self) -> Iterator[tuple[str, Sequence[str], list[list[str]], str | None]]:
        """Title, columns, rows and legend of the tables: content addresses, and metrics with intervals if there are any."""
        if self.adapters:
            yield "adapters and models", _ADAPTER_COLUMNS, [[c.step, _address(c.old), _address(c.new)] for c in self.adapters], None
        if not self.metrics:
            return
        paired = [change.paired for change in self.metrics if change.paired]
        # An overlap of intervals says less than a test: it is there for what was not tested.
        overlapping = any(c.intervals_overlap is not None and not c.paired for c in self.metrics)
        test = p_name(one.correction for one in paired)
        rows = []
        for c in self.metrics:
            row = [c.step, c.subject, f"{_show(c.old)}{_around(c.old_interval)}", f"{_show(c.new)}{_around(c.new_interval)}"]
            tested = [p_text(c.paired.p_corrected), "yes" if c.paired.significant else "no"] if c.paired else ["", ""]
            overlap = "" if c.paired else {None: "", True: "yes", False: "no"}[c.intervals_overlap]
            rows.append([*row, c.shown_difference, *(tested if paired else []), *([overlap] if overlapping else [])])
        columns = [*_METRIC_COLUMNS, *([test, "significant"] if paired else []), *([_OVERLAP] if overlapping else [])]
        measured = any(change.old_interval or change.new_interval for change in self.metrics)
        levels = {f"{1 - one.confidence:.2g}" for one in paired}
        level = levels.pop() if len(levels) == 1 else "1 - confidence"
        said = [_INTERVALS] * measured + [_TESTED.format(p=test, level=level)] * bool(paired) + [_UNTESTED] * overlapping
        yield "metrics", columns, rows, "; ".join(said) or None


def differences_between(project: Project, old: str, new: str | None, fetch: Callable[[Iterable[str]], object] | None = None) -> Changes:
    """The differences between the revisions OLD and NEW (None: the working tree), tested where both answered the same rows.

    OLD alone may be a range, as in git: `A..B` are the revisions A and B, `A...B` the last commit that both have in common, and B; where
    A or B is missing, it is HEAD. FETCH brings objects, by md5, into the cache. Raises UserError for an unknown revision, and for a range
    next to NEW.
    """
    before, now = _states(project, old, new)
    if fetch:
        trainings = ((step, _training(state, step)) for state in (before, now) for step in state.steps)
        fetch(dict.fromkeys(md5 for step, record in trainings if record and (md5 := _statement(record, step))))
        files_needed(before.evaluations, now.evaluations, project.store(), fetch)
    return with_tests(compare(before, now, project.store()), project.store())


def _states(project: Project, old: str, new: str | None) -> tuple[State, State]:
    one, dots, other = _range(old)
    if not dots:
        return state_at(project.root, old), state_at(project.root, new) if new else working_state(project)
    if new is not None:
        raise UserError(f"{old} names two revisions, and {new} is a third", hint=f"run: engine diff {old}")
    if dots == "...":
        common = git.merge_base(project.root, one, other)
        before = state_at(project.root, common, f"{short(common)}, which {one} and {other} have in common")
    else:
        before = state_at(project.root, one)
    return before, state_at(project.root, other)


def with_tests(changes: Changes, store: Store) -> Changes:
    """CHANGES with paired tests of the metrics of evaluations, where STORE has the predictions of both states."""
    # A table without intervals is one of steps that measure no answers.
    measured = {(c.step, task) for c in changes.metrics if c.old_interval and c.new_interval for task in (c.subject.rpartition(".")[0],)}
    if not measured:
        return changes
    found = paired_between(changes.old.evaluations, changes.new.evaluations, store)
    paired = {(step, f"{task}.{metric}"): one for (step, task, metric), one in found.paired.items()}
    steps = {step for step, _ in measured}
    unpaired = tuple(one for one in found.unpaired if ((one.step, one.task) in measured if one.task else one.step in steps))
    return replace(changes, metrics=tuple(replace(c, paired=paired.get((c.step, c.subject))) for c in changes.metrics), unpaired=unpaired)


def _range(text: str) -> tuple[str, str, str]:
    """The revisions in TEXT and the dots between them; no name of a revision has two dots in a row."""
    one, dots, other = re.match(r"(.*?)(\.{2,3}|$)(.*)", text).groups()  # type: ignore[union-attr]
    return (one or "HEAD", dots, other or "HEAD") if dots else (text, "", "")


def state_at(root: Path, revision: str, title: str | None = None) -> State:
    """The state that a git revision holds; TITLE: how it is named, if not by REVISION."""
    commit = git.commit_of(root, revision)
    return read_state(title or revision, git.files_at(root, commit, dvcfile.PARAMS, dvcfile.LOCK, METRICS, PLOTS))


def working_state(project: Project) -> State:
    """The state of the working tree; recipes are those of the specs, compiled or not."""
    paths = [project.root / dvcfile.LOCK, *(project.root / METRICS).rglob("*.json"), *(project.root / PLOTS).glob("*.csv")]
    files = {path.relative_to(project.root).as_posix(): path.read_bytes() for path in paths if path.is_file()}
    return read_state(WORKING_TREE, files | {dvcfile.PARAMS: project.compiled[dvcfile.PARAMS].encode()})


def read_state(title: str, files: Mapping[str, bytes]) -> State:
    """The state that FILES (path to content) describe; raises UserError if one of them cannot be read."""
    measured = {path: data for path, data in files.items() if path.startswith(f"{METRICS}/")}
    metrics = {measured_by(path): _parsed(_parse_json, data, f"{path} of {title}") for path, data in measured.items()}
    params = _parsed(_parse_params, files.get(dvcfile.PARAMS, b""), f"{dvcfile.PARAMS} of {title}")
    records = _parsed(dvcfile.parse_lock, files.get(dvcfile.LOCK, b""), f"{dvcfile.LOCK} of {title}")
    plots = {path: data for path, data in files.items() if path.startswith(f"{PLOTS}/")}
    intervals = {PurePosixPath(path).stem: found for path, data in plots.items() if (found := _intervals(data))}
    return State(title, params, records, metrics, intervals, tuple(name for name in (dvcfile.PARAMS, dvcfile.LOCK) if name not in files))


def _intervals(plot: bytes) -> dict[str, Interval]:
    """The intervals of a model's own values in the plot of its evaluation, by task and metric; none in another plot, or a damaged one."""
    found = {}
    for row in csv.DictReader(io.StringIO(plot.decode("utf-8", "replace"))):
        try:
            if row["score"] == f"{row['task']} {row['metric']}":  # other rows are those of models that it is compared with
                found[f"{row['task']}.{row['metric']}"] = float(row["low"]), float(row["high"])
        except (KeyError, TypeError, ValueError):
            continue
    return found


def _parse_json(data: bytes) -> Any:
    def refuse(name: str) -> float:
        raise ValueError(f"{name} is not a number")

    return json.loads(data, parse_constant=refuse)


def _parse_params(data: bytes) -> dict[str, Any]:
    return dvcfile.parse_yaml(data) or {}


def _parsed(parse: Callable[[bytes], Any], data: bytes, name: str) -> dict[str, Any]:
    try:
        content = parse(data)
    except ValueError as error:
        raise UserError(f"{name} cannot be read: {error}", Location(name)) from None
    if not isinstance(content, dict):
        raise UserError(f"{name} must contain a YAML mapping, got {type(content).__name__}", Location(name))
    return content


def compare(old: State, new: State, store: Store) -> Changes:
    """The differences between two states; STORE provides the provenance with the content addresses."""
    names = tuple(dict.fromkeys([*new.steps, *old.steps]))
    both = [name for name in names if name in old.recipes and name in new.recipes]
    artifacts = tuple(_differing("artifact", {name: (_artifact(old, name), _artifact(new, name)) for name in names}))
    return Changes(
        old,
        new,
        added=tuple(name for name in new.steps if name not in old.steps),
        removed=tuple(name for name in old.steps if name not in new.steps),
        recipes=tuple(change for name in both for change in _fields(name, old.recipes[name], new.recipes[name])),
        artifacts=artifacts,
        adapters=tuple(_differing("digest", {c.step: (_digest(old, c.step, store), _digest(new, c.step, store)) for c in artifacts}, LOST)),
        metrics=tuple(_measured(change, old, new) for name in names for change in _fields(name, _numbers(old, name), _numbers(new, name))),
    )


def _measured(change: Change, old: State, new: State) -> Change:
    """CHANGE with the intervals that both states have of its values."""
    before, now = (state.intervals.get(change.step, {}).get(change.subject) for state in (old, new))
    return replace(change, old_interval=before, new_interval=now)


def _around(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval[0]:.4g}, {interval[1]:.4g}]"


def _fields(step: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for path, before, now in differences(old, new):
        yield Change(step, ".".join(map(str, path)), before, now)


def _differing(subject: str, pairs: Mapping[str, tuple[str | None, str | None]], unknown: str | None = None) -> Iterable[Change]:
    """The pairs that differ, and those with UNKNOWN on both sides."""
    for step, (old, new) in pairs.items():
        if old != new or (unknown is not None and old == unknown):
            yield Change(step, subject, old, new)


def _artifact(state: State, step: str) -> str | None:
    """md5 of a step's recorded artifact; None if the revision has no such step or record."""
    record = state.records.get(step) if step in state.steps else None
    entry = record.outputs.get(f"{ARTIFACTS}/{step}") if record else None
    return entry.md5 if entry else None


def _training(state: State, step: str) -> Record | None:
    """The record of a training; None for other steps and for those that the revision has not built."""
    record = state.records.get(step) if step in state.steps else None
    return record if record and dvcfile.kind_of(record.command) == train.KIND.name else None


def _statement(record: Record, step: str) -> str | None:
    """md5 of the recorded statement of a step."""
    entry = record.outputs.get(f"{ARTIFACTS}/{step}.provenance.json")
    return entry.md5 if entry else None


def _digest(state: State, step: str, store: Store) -> str | None:
    """Content address of a training's artifact; None for other steps and for those that the revision has not built."""
    record = _training(state, step)
    if record is None:
        return None
    md5 = _statement(record, step)
    data = store.read(md5) if md5 else None
    if data is None:
        return LOST
    found = parse(data)
    return found.digest if found else "damaged in the cache"


def _numbers(state: State, step: str) -> dict[str, Any]:
    """A step's metrics as one flat mapping, so that each added or removed value is listed."""
    return dict(_leaves(state.metrics.get(step, {}))) if step in state.steps else {}


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _address(value: str | None) -> str:
    if value is None:
        return _ABSENT
    return value if " " in value else short(value)


def _show(value: Any) -> str:
    return _ABSENT if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
