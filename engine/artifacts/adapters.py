"""The adapters of a workspace: those that its specs ask for, and those that git's history or the cache still knows of."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from engine.dvc import dvcfile
from engine.artifacts.addresses import PROVENANCE, provenance_of
from engine.dvc.dvcfile import Entry, Record
from engine.core.errors import UserError
from engine.artifacts.garbage_collection import Area, documents
from engine.core.graph import ARTIFACTS, Graph
from engine.identity.text import short
from engine.plan.decide import Action, Plan
from engine.identity.provenance import Provenance
from engine.results.table import digest_of, number, scores_of
from engine.spec.load import Spec
from engine.dvc.store import Store

_TRAININGS = f"{ARTIFACTS}/train-"
_DIGITS = re.compile(r"(sha256:)?[0-9a-f]{1,64}")
_WHOLE = "full"
"""The method that makes a model and no adapter."""


@dataclass(frozen=True)
class Adapter:
    """One trained adapter."""

    digest: str | None
    experiment: str
    spec: str
    step: str
    method: str
    base: str
    """The artifact or folder of the model that it belongs to."""
    in_cache: bool
    metrics: dict[str, Any]
    current: bool
    """Whether the adapter is that of the specs, code and data as they are now."""
    made: str = ""
    """When it was trained, for those that no spec asks for any more; empty where no record of the run is left."""
    past: bool = False
    """Whether it is of git's history or of the cache alone."""

    @property
    def state(self) -> str:
        """In a word, how it stands to the specs."""
        return "past" if self.past else "current" if self.current else "stale" if self.digest else "–"


@dataclass(frozen=True)
class Choice:
    """Which adapters are asked for; patterns as a shell has them, None: any."""

    step: str | None = None
    method: str | None = None
    base: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        if self.digest is not None and not _DIGITS.fullmatch(self.digest):
            hint = "give its first hexadecimal digits, as `engine adapters` lists them, or leave --digest out"
            raise UserError(f"'{self.digest}' is the beginning of no content address", hint=hint)
        if empty := [name for name in ("step", "method", "base") if getattr(self, name) == ""]:
            raise UserError(f"--{empty[0]} is empty, and no adapter has an empty one", hint=f"give a pattern, or leave --{empty[0]} out")

    def __contains__(self, adapter: object) -> bool:
        assert isinstance(adapter, Adapter)
        wanted = {name: getattr(self, name) for name in ("step", "method", "base") if getattr(self, name)}
        begins = (adapter.digest or "").removeprefix("sha256:").startswith((self.digest or "").removeprefix("sha256:"))
        return begins and all(fnmatch(getattr(adapter, name), pattern) for name, pattern in wanted.items())


@dataclass(frozen=True)
class Training:
    """One recorded training that any `dvc.lock`, of the working tree or in git, or the run cache names."""

    step: str
    artifact: Entry
    record: Record = field(compare=False)
    provenance: str
    """The md5 of the file that says what it is."""


def adapters(specs: Iterable[Spec], graph: Graph, store: Store, plan: Plan) -> tuple[Adapter, ...]:
    """The adapter of every spec that trains one, built or not."""
    found = []
    for spec in specs:
        name, method = spec.name, spec.experiment.training.method
        step = graph[f"train-{name}"]
        if not method.makes_adapter:
            continue
        record = store.record(step.name)
        entry = record.outputs.get(step.artifact) if record else None
        held = bool(entry and store.holds(entry))
        base = _short_path(step.inputs["model"].path)
        metrics = scores_of(graph[f"evaluate-{name}"], store)
        current = plan[step.name].action is Action.KEEP
        found.append(Adapter(digest_of(step, store), name, spec.path, step.name, method.kind, base, held, metrics, current))
    return tuple(found)


def past(root: Path, store: Store, known: Iterable[str | None]) -> tuple[Adapter, ...]:
    """The adapters besides those KNOWN by digest that were built once, the newest first; one whose provenance is lost has no address."""
    found: dict[str, Adapter] = {}
    seen = set(known)
    for training in trainings(root):
        told = provenance_of(training.record, store)
        if told and told.digest not in seen and _method(told) != _WHOLE:
            found.setdefault(told.digest, _past(training, told, store))
    return tuple(sorted(found.values(), key=lambda adapter: adapter.made, reverse=True))


def _past(training: Training, told: Provenance, store: Store) -> Adapter:
    ran = store.run_record(training.step, training.provenance)
    spec, base = ((ran.spec if ran else None) or "").partition(":")[0], _short_path(told.inputs["model"]["path"])
    held = store.holds(training.artifact)
    name = training.step.removeprefix("train-")
    return Adapter(told.digest, name, spec, training.step, _method(told), base, held, {}, False, ran.finished if ran else "", True)


def _method(told: Provenance) -> str:
    method = told.recipe.get("method")
    return str(method["kind"]) if isinstance(method, dict) else str(method)


def _short_path(path: str) -> str:
    return path.removeprefix(f"{ARTIFACTS}/")


def trainings(root: Path) -> Iterator[Training]:
    """Every training on record, each once: of the working tree, of any commit, of the run cache."""
    seen: set[str] = set()
    for record in recorded(root, _TRAININGS):
        for path, entry in record.outputs.items():
            provenance = record.outputs.get(path + PROVENANCE)
            if path.startswith(_TRAININGS) and provenance and provenance.md5 not in seen:
                seen.add(provenance.md5)
                yield Training(path.removeprefix(f"{ARTIFACTS}/"), entry, record, provenance.md5)


def recorded(root: Path, naming: str) -> Iterator[Record]:
    """The records of the working tree's and any commit's `dvc.lock` that says NAMING somewhere, and all of the run cache."""
    for text in documents(root, history=True):
        if naming.encode() in text:
            try:
                yield from dvcfile.parse_lock(text).values()
            except ValueError:
                # With conflict marks in it, it says of no run for certain what it left; the commits on both sides do.
                continue
    yield from (run.record for run in Area(root).runs if run.record)


COLUMNS = ("digest", "experiment", "method", "base", "spec", "step", "in cache", "state")


def rows(found: Sequence[Adapter], metric: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the list of adapters."""
    table = []
    for adapter in found:
        scores = ", ".join(f"{task} {number(values.get(metric))}" for task, values in adapter.metrics.items())
        digest = short(adapter.digest) if adapter.digest else "not built"
        held = "yes" if adapter.in_cache else "no"
        named = [adapter.experiment, adapter.method, adapter.base, adapter.spec, adapter.step]
        table.append([digest, *named, held, adapter.state, scores])
    return [*COLUMNS, metric], table


def as_data(found: Iterable[Adapter]) -> list[dict[str, Any]]:
    """Plain JSON values, for `--json`."""
    return [asdict(adapter) | {"state": adapter.state} for adapter in found]
