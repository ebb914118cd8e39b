"""Caches the compiled workspace for one exact state of specs, code and versions: a cached plan parses no spec and imports no pydantic."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core import memo
from engine.core.digests import canonical, digest
from engine.core.errors import Location, Problem
from engine.core.gc_pause import without_collection
from engine.core.graph import PLOTS, Graph, Input, Step
from engine.dvc.hashing import Hashes
from engine.identity.environment import LOCKS
from engine.plan.recompile import location, place

if TYPE_CHECKING:
    from engine.core.part import Kind, Part

_STARTED = time.time_ns()
_MARGIN = 1_000_000_000


@dataclass(frozen=True)
class SpecName:
    """A spec as named on the command line: its path, its experiment, and its target steps."""

    path: str
    experiment: str
    targets: tuple[str, ...]
    stem: str
    """The experiment's name as written in the file; all points of a sweep share it."""


@dataclass(frozen=True)
class Outline:
    """A compiled workspace."""

    specs: tuple[SpecName, ...]
    files: tuple[str, ...]
    """Every TOML file that was read; relative to the workspace if inside it."""
    graph: Graph
    digests: Mapping[str, str]
    """md5 of each step's identity file, by step name."""
    pipeline: str
    """md5 of the `dvc.yaml` that the specs compile to."""
    resolved: Mapping[str, str]
    """Expected md5 of each path that `resolve` writes."""
    state: str
    """Digest of everything that this was compiled from."""
    common: str
    """Digest of that part of it which is not the files of specs."""
    resources: Mapping[str, str]
    """md5 of each step's resources file, by step name."""
    device_memory: Mapping[str, float]
    """The memory in GB that the specs state of their devices, by training step."""
    warnings: tuple[Problem, ...] = ()
    """Values in the specs that are valid but look like mistakes."""
    loggers: Mapping[str, Location | None] = field(default_factory=dict)
    """The loggers that the specs name, each with its location."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The package versions that the identities contain, by package."""


class CachedStep(Step):
    """A cached step, whose parameters are loaded from the specs on first access."""

    def __init__(self, name: str, kind_name: str, plots: bool, whole: Callable[[str], Step], **fields: Any) -> None:
        self.__dict__.update(fields, name=name, _kind_name=kind_name, _plots=plots, _whole=whole)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def kind_name(self) -> str:
        """Name of the step's kind."""
        return str(self.__dict__["_kind_name"])

    @property
    def plots(self) -> str | None:
        """Path of the plot that the step writes; None if it writes none."""
        return f"{PLOTS}/{self.name}.csv" if self.__dict__["_plots"] else None

    @property
    def kind(self) -> "Kind":
        """The step's kind; importing it imports the kind's parameters."""
        from stages.kinds import KINDS

        return KINDS[self.kind_name]

    @property
    def parameters(self) -> "Part":
        """The step's parameters, from the specs."""
        return self._of_whole().parameters

    @property
    def numerics(self) -> str:
        """The numeric settings that the step's process applies before it computes."""
        return self._of_whole().numerics

    @property
    def locate(self) -> Callable[[tuple[str | int, ...]], Location | None]:
        """Maps a field of the recipe to its location in the specs."""
        return self._of_whole().locate

    def _of_whole(self) -> Step:
        whole: Callable[[str], Step] = self.__dict__["_whole"]
        return whole(self.name)


@dataclass(frozen=True)
class State:
    """Everything that compilation depends on; tells whether a cached outline is still valid."""

    hashes: Hashes
    code: Path
    """The folder that holds `engine` and `stages`."""
    specs: Sequence[Path]
    version: Callable[[str], str]
    """The installed version of a package."""

    def of(self, files: Iterable[str], inputs: Iterable[str], packages: Iterable[str]) -> dict[str, Any]:
        """The state as JSON values: hashes of FILES and the code, paths of specs, stamps of INPUTS, versions of the unlocked PACKAGES."""
        read = (*files, *self.always())
        return {
            "versions": [sys.version, str(self.code), _pydantic()],
            "specs": [str(path) for path in self.specs],
            "files": {name: entry.md5 if (entry := self.hashes.entry(name, _is_source)) else None for name in read},
            "inputs": {name: self._touched(name) for name in inputs},
            "packages": {name: self.version(name) for name in packages},
        }

    def _touched(self, name: str) -> object:
        """A value that changes when NAME does: a file's stamp; a folder's content hash, since its mtime ignores changes in subfolders."""
        path = self.hashes.root / name
        return entry.md5 if path.is_dir() and (entry := self.hashes.entry(name)) else memo.stamp_of(path)

    def always(self) -> tuple[str, ...]:
        """The files and folders that every compilation depends on."""
        return ("pyproject.toml", *LOCKS, str(self.code / "engine"), str(self.code / "stages"))

    def common(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """STATE without the files of specs."""
        return {**state, "files": {name: state["files"][name] for name in self.always()}}

    def settled(self, state: Mapping[str, Any]) -> bool:
        """Whether no file of STATE changed since this process started, so that what was compiled matches the files on disk."""
        root = self.hashes.root
        kinds = ((state["files"], ".py"), (state["files"], ".json"), (state["inputs"], ""))
        read = ((root / name, suffix) for names, suffix in kinds for name in names)
        paths = (path for name, suffix in read for path in _files(name, suffix))
        return all(max(status.st_mtime_ns, status.st_ctime_ns) < _STARTED - _MARGIN for path in paths if (status := path.stat()))


def _is_source(path: str) -> bool:
    return not path.endswith("/__pycache__/")


def _files(path: Path, suffix: str) -> Iterator[Path]:
    """PATH if it exists, and the files below it whose names end in SUFFIX."""
    yield from ([path] if path.exists() else [])
    yield from path.rglob(f"*{suffix}") if path.is_dir() else ()


def writer() -> list[int]:
    """A stamp of this module: only the version that wrote a cache can read it."""
    return memo.stamp(Path(__file__).stat())


def _pydantic() -> list[int]:
    """A stamp of the installed pydantic, which parses the specs; found without importing it."""
    found = find_spec("pydantic")
    assert found and found.origin
    return memo.stamp(Path(found.origin).with_name("version.py").stat())


def remember(path: Path, outline: Outline, state: Mapping[str, Any]) -> None:
    """Cache OUTLINE, which was compiled from STATE, at PATH."""
    value = {"by": writer(), "state": state, "pipeline": outline.pipeline, "resolved": outline.resolved, "files": outline.files}
    value |= {"asked": outline.versions, "common": outline.common, "device_memory": outline.device_memory}
    specs = [[spec.path, spec.experiment, spec.targets, spec.stem] for spec in outline.specs]
    value |= {
        "warnings": [[one.what, place(one.where), one.hint, one.severity] for one in outline.warnings],
        "loggers": {name: place(where) for name, where in outline.loggers.items()},
    }
    memo.save(path, value | {"specs": specs, "aliases": outline.graph.aliases, **_packed(outline)})


def recall(path: Path, state: State, whole: Callable[[str], Step]) -> Outline | None:
    """The outline cached at PATH; None if anything it was compiled from has changed. WHOLE returns a step with its parameters."""
    found = recall_edited(path, state, whole)
    return found[0] if found and not found[1] else None


def recall_edited(path: Path, state: State, whole: Callable[[str], Step]) -> tuple[Outline, tuple[str, ...]] | None:
    """The outline cached at PATH, and the files of specs that have changed since; None if anything else has changed."""
    found = memo.load(path)
    if not found or found.get("by") != writer():
        return None
    before = found["state"]
    now = state.of(found["files"], before["inputs"], before["packages"])
    if {**now, "files": None} != {**before, "files": None}:
        return None
    changed = tuple(name for name, md5 in now["files"].items() if before["files"][name] != md5)
    if not set(changed) <= {*found["files"]} - {*state.always()}:
        return None
    specs = tuple(SpecName(spec, experiment, tuple(targets), stem) for spec, experiment, targets, stem in found["specs"])
    graph, digests, resources = _unpacked(found, whole)
    warnings = tuple(Problem(what, location(where), hint, severity) for what, where, hint, severity in found["warnings"])
    loggers = {name: location(where) for name, where in found["loggers"].items()}
    outline = Outline(
        specs,
        tuple(found["files"]),
        graph,
        digests,
        found["pipeline"],
        found["resolved"],
        digest(canonical(before)),
        found["common"],
        resources,
        found["device_memory"],
        warnings,
        loggers,
        found["asked"],
    )
    return outline, changed


def _packed(outline: Outline) -> dict[str, Any]:
    """The steps as compact JSON values; an input of several steps is stored once."""
    places = {(item.path, item.producer, item.where) for step in outline.graph for item in step.inputs.values()}
    inputs = {item: number for number, item in enumerate(places)}
    steps = [
        [
            *(step.name, step.kind_name, bool(step.plots), step.description, place(step.origin)),
            *({role: inputs[item.path, item.producer, item.where] for role, item in step.inputs.items()}, outline.digests[step.name]),
            outline.resources[step.name],
        ]
        for step in outline.graph
    ]
    return {"inputs": [[path, producer, place(where)] for path, producer, where in inputs], "steps": steps}


@without_collection
def _unpacked(found: Mapping[str, Any], whole: Callable[[str], Step]) -> tuple[Graph, dict[str, str], dict[str, str]]:
    inputs = [Input(path, producer, location(where)) for path, producer, where in found["inputs"]]
    steps, digests, resources = [], {}, {}
    for name, kind, plots, description, origin, reads, identity, resource in found["steps"]:
        by_role = {role: inputs[number] for role, number in reads.items()}
        steps.append(CachedStep(name, kind, plots, whole, inputs=by_role, description=description, origin=location(origin)))
        digests[name], resources[name] = identity, resource
    return Graph(steps, found["aliases"]), digests, resources
