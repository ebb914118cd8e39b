"""Tests whether metrics of two revisions differ on the rows that both have answered; a subprocess of `stages` does the heavy imports.

An evaluation's statement says which files of predictions it has read; the cache has them, or has not, and then nothing is tested.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.graph import ARTIFACTS
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Record
from engine.dvc.store import Store
from engine.identity.provenance import Provenance, parse
from stages.process.starting import ours

Metrics = Mapping[str, Mapping[str, Any]]
"""Of an evaluation, as recorded: values by task and metric."""
RUNS_CODE = ("unit_tests",)
"""Metrics that run the code of answers, which a comparison of revisions never does."""


@dataclass(frozen=True)
class Paired:
    """A difference (new minus old) on the rows that both revisions answered, with its paired permutation test."""

    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    """Corrected for all tested comparisons of this metric between the two revisions."""
    correction: str
    confidence: float
    significant: bool
    """Whether the corrected p-value is below 1 minus the confidence."""
    rows: int
    """The number of rows that both answered."""
    interval: str
    """Method of the interval."""


@dataclass(frozen=True)
class Unpaired:
    """Values of an evaluation that were not tested, and why."""

    step: str
    task: str | None
    """None: of all tasks."""
    why: str


@dataclass(frozen=True)
class Evaluations:
    """What one revision has of evaluations, by step."""

    title: str
    records: Mapping[str, Record]
    metrics: Mapping[str, Metrics]

    def statement(self, step: str) -> str | None:
        """The md5 of the statement of STEP's evaluation; None if the revision has none."""
        record = self.records.get(step)
        if record is None or dvcfile.kind_of(record.command) != "evaluate":
            return None
        entry = record.outputs.get(f"{ARTIFACTS}/{step}.provenance.json")
        return entry.md5 if entry else None


@dataclass
class Pairings:
    """The tests of all evaluations that two revisions share."""

    paired: dict[tuple[str, str, str], Paired] = field(default_factory=dict)
    """By step, task and metric."""
    unpaired: list[Unpaired] = field(default_factory=list)


def files_needed(old: Evaluations, new: Evaluations, store: Store, fetch: Callable[[Iterable[str]], object]) -> None:
    """FETCH into the cache what `paired_between` reads: first the statements, then the predictions that differ."""
    shared = _shared(old, new)
    fetch(dict.fromkeys(md5 for pair in shared.values() for md5 in pair))
    wanted = [
        one.inputs[read]["md5"]
        for _, before, now in _statements(shared, store)
        if before and now
        for role, _, _ in _differing(before, now)
        for one in (before, now)
        for read in (role, f"judge/{role}")
        if read in one.inputs
    ]
    fetch(dict.fromkeys(wanted))


def paired_between(old: Evaluations, new: Evaluations, store: Store) -> Pairings:
    """Paired tests of the evaluations that OLD and NEW share, wherever STORE has the predictions of both and these differ."""
    found = Pairings()
    with tempfile.TemporaryDirectory() as folder:
        evaluations = list(_evaluations(old, new, store, Path(folder), found))
        if not evaluations:
            return found
        answer = _asked({"titles": {"old": old.title, "new": new.title}, "evaluations": evaluations})
    found.unpaired += [Unpaired(**one) for one in answer["untested"]]
    fewer: dict[tuple[str, str], str] = {}
    for one in answer["compared"]:
        step, task, metric = one["step"], one["task"], one["metric"]
        recorded = {"old": old.metrics.get(step, {}).get(task, {}), "new": new.metrics.get(step, {}).get(task, {})}
        titles = {"old": old.title, "new": new.title}
        if other := [titles[side] for side, values in recorded.items() if values.get(metric) != one["values"][side]]:
            found.unpaired.append(Unpaired(step, task, f"{metric} of {' and '.join(other)} was computed by other code or package versions"))
            continue
        if not one["rows"] == one["of_rows"]["old"] == one["of_rows"]["new"]:
            counts = " and ".join(f"{one['of_rows'][side]} of {titles[side]}" for side in ("old", "new"))
            fewer[step, task] = f"only the {one['rows']} rows that both answered were tested, of {counts}"
        found.paired[step, task, metric] = Paired(**{name: one[name] for name in Paired.__dataclass_fields__})
    found.unpaired += [Unpaired(step, task, why) for (step, task), why in fewer.items()]
    return found


def _shared(old: Evaluations, new: Evaluations) -> dict[str, tuple[str, str]]:
    """The evaluations of both revisions whose statements differ, with both statements."""
    pairs = {step: (old.statement(step), new.statement(step)) for step in new.records}
    return {step: (before, now) for step, (before, now) in pairs.items() if before and now and before != now}


def _statements(shared: Mapping[str, tuple[str, str]], store: Store) -> Iterator[tuple[str, Provenance | None, Provenance | None]]:
    for step, pair in shared.items():
        before, now = (parse(data) if (data := store.obtain(md5)) else None for md5 in pair)
        yield step, before, now


def _differing(before: Provenance, now: Provenance) -> Iterator[tuple[str, str, bool]]:
    """Role and task of the own predictions of evaluations that differ; whether the old one has any."""
    for role, read in now.inputs.items():
        if role.startswith("predictions/"):
            found = before.inputs.get(role)
            if found is None or found["md5"] != read["md5"]:
                yield role, role.removeprefix("predictions/"), found is not None


def _evaluations(old: Evaluations, new: Evaluations, store: Store, folder: Path, found: Pairings) -> Iterator[dict[str, Any]]:
    """The request for each evaluation of which STORE has what a test reads, written into FOLDER; what it lacks goes to FOUND."""
    for step, before, now in _statements(_shared(old, new), store):
        if before is None or now is None:
            lacking = " and ".join(state.title for state, read in ((old, before), (new, now)) if read is None)
            found.unpaired.append(Unpaired(step, None, f"the statement of {lacking} is not in the cache"))
            continue
        metrics = [one for one in now.recipe["metrics"] if one in before.recipe["metrics"] and one["kind"] not in RUNS_CODE]
        for one in now.recipe["metrics"]:
            if one not in metrics:
                why = (
                    "runs the code of answers, which only evaluations do" if one["kind"] in RUNS_CODE else "is measured with other settings"
                )
                found.unpaired.append(Unpaired(step, None, f"{one['kind']} {why}"))
        tasks = {}
        for role, task, has_old in _differing(before, now):
            if not has_old:
                continue
            files: dict[str, dict[str, str]] = {"old": {}, "new": {}}
            unread = []
            for state, side, read in ((old, "old", before), (new, "new", now)):
                for what, name in (("predictions", role), ("judgements", f"judge/{role}")):
                    if name not in read.inputs:
                        continue
                    if (data := store.obtain(read.inputs[name]["md5"])) is None:
                        unread.append(f"the {what} of {state.title}")
                        continue
                    path = folder / f"{len(list(folder.iterdir()))}.jsonl"
                    path.write_bytes(data)
                    files[side][what] = str(path)
            if unread:
                found.unpaired.append(Unpaired(step, task, f"{' and '.join(unread)} are not in the cache"))
            else:
                tasks[task] = files
        if tasks and metrics:
            yield {"step": step, "parameters": {**now.recipe, "metrics": metrics, "compare": []}, "tasks": tasks}


def _asked(request: Mapping[str, Any]) -> Any:
    """The answer of the process of `stages`."""
    done = subprocess.run(
        ours("stages.revisions"), input=json.dumps(request), capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise RuntimeError(f"the comparison of revisions failed:\n{done.stderr}")
    return json.loads(done.stdout)
