"""The adapters of a workspace: those of its specs, and earlier ones that git's history or the cache still has."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.artifacts.addresses import PROVENANCE, provenance_of
from engine.core.errors import UserError
from engine.core.graph import ARTIFACTS, Graph
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.recorded import recorded
from engine.dvc.store import Store
from engine.identity.provenance import Provenance
from engine.identity.text import short
from engine.plan.decide import Action, Plan
from engine.results.table import digest_of, number, scores_of

if TYPE_CHECKING:
    from engine.spec.sections import Spec

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
    """The artifact or folder of its base."""
    in_cache: bool
    metrics: dict[str, Any]
    current: bool
    """Whether the adapter is up to date with specs, code and data."""
    made: str = ""
    """When it was trained, for adapters that are no longer in a spec; empty if no run record is left."""
    past: bool = False
    """Whether only git's history or the cache has it."""

    @property
    def state(self) -> str:
        """`current`, `stale` or `past`, relative to the specs; `–` if it is not built."""
        return "past" if self.past else "current" if self.current else "stale" if self.digest else "–"


@dataclass(frozen=True)
class Choice:
    """A filter for adapters; shell patterns, None: any."""

    step: str | None = None
    method: str | None = None
    base: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        if self.digest is not None and not _DIGITS.fullmatch(self.digest):
            hint = "give its first hexadecimal digits, as listed by `engine adapters`, or omit --digest"
            raise UserError(f"'{self.digest}' is not the start of a content address", hint=hint)
        if empty := [name for name in ("step", "method", "base") if getattr(self, name) == ""]:
            raise UserError(f"--{empty[0]} must not be empty", hint=f"give a pattern, or omit --{empty[0]}")

    def __contains__(self, adapter: object) -> bool:
        assert isinstance(adapter, Adapter)
        wanted = {name: getattr(self, name) for name in ("step", "method", "base") if getattr(self, name)}
        begins = (adapter.digest or "").removeprefix("sha256:").startswith((self.digest or "").removeprefix("sha256:"))
        return begins and all(fnmatch(getattr(adapter, name), pattern) for name, pattern in wanted.items())


@dataclass(frozen=True)
class Training:
    """One training recorded in any `dvc.lock`, of the working tree or in git, or in the run cache."""

    step: str
    artifact: Entry
    record: Record = field(compare=False)
    provenance: str
    """md5 of its provenance file."""


def adapters(specs: "Iterable[Spec]", graph: Graph, store: Store, plan: Plan) -> tuple[Adapter, ...]:
    """The adapter of every spec that trains one, built or not."""
    found = []
    for spec in specs:
        name, method = spec.name, spec.experiment.method
        if method is None or not method.makes_adapter:
            continue
        step = graph[f"train-{name}"]
        record = store.record(step.name)
        entry = record.outputs.get(step.artifact) if record else None
        held = bool(entry and store.holds(entry))
        base = _short_path(step.inputs["model"].path)
        metrics = scores_of(graph[f"evaluate-{name}"], store)
        current = plan[step.name].action is Action.KEEP
        found.append(Adapter(digest_of(step, store), name, spec.path, step.name, method.kind, base, held, metrics, current))
    return tuple(found)


def past(root: Path, store: Store, known: Iterable[str | None]) -> tuple[Adapter, ...]:
    """Adapters of earlier builds whose digest is not in KNOWN, newest first; trainings without provenance are left out."""
    found: dict[str, Adapter] = {}
    seen = set(known)
    for training in trainings(root):
        provenance = provenance_of(training.record, store)
        if provenance and provenance.digest not in seen and _method(provenance) != _WHOLE:
            found.setdefault(provenance.digest, _past(training, provenance, store))
    return tuple(sorted(found.values(), key=lambda adapter: adapter.made, reverse=True))


def _past(training: Training, provenance: Provenance, store: Store) -> Adapter:
    ran = store.run_record(training.step, training.provenance)
    spec, base = ((ran.spec if ran else None) or "").partition(":")[0], _short_path(provenance.inputs["model"]["path"])
    held = store.holds(training.artifact)
    name = training.step.removeprefix("train-")
    return Adapter(
        provenance.digest, name, spec, training.step, _method(provenance), base, held, {}, False, ran.finished if ran else "", True
    )


def _method(provenance: Provenance) -> str:
    method = provenance.recipe.get("method")
    return str(method["kind"]) if isinstance(method, dict) else str(method)


def _short_path(path: str) -> str:
    return path.removeprefix(f"{ARTIFACTS}/")


def trainings(root: Path) -> Iterator[Training]:
    """Every recorded training, each once: of the working tree, of all commits, of the run cache."""
    seen: set[str] = set()
    for record in recorded(root, _TRAININGS):
        for path, entry in record.outputs.items():
            provenance = record.outputs.get(path + PROVENANCE)
            if path.startswith(_TRAININGS) and provenance and provenance.md5 not in seen:
                seen.add(provenance.md5)
                yield Training(path.removeprefix(f"{ARTIFACTS}/"), entry, record, provenance.md5)


COLUMNS = ("digest", "experiment", "method", "base", "spec", "step", "in cache", "state")


def rows(found: Sequence[Adapter], metric: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table of adapters."""
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
