"""Garbage collection: finds leftovers of builds, and results that no spec, git revision or kept adapter refers to."""

import fcntl
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.artifacts.addresses import SHORTEST, matching, provenance_of
from engine.core.errors import UserError
from engine.core.graph import ARTIFACTS
from engine.dvc import dvcfile
from engine.dvc.config import cache_folder, check_repository
from engine.dvc.dvcfile import Record
from engine.dvc.locks import build_lock, dvc_lock
from engine.dvc.recorded import Area, documents
from engine.dvc.store import Store
from engine.dvc.writing import remove
from engine.plan.decide import Action, Decision, Planner
from engine.plan.project import Project
from engine.plan.resuming import scratch_of

# Every word that looks like an md5 counts, even in a file with conflict markers: keeping too much costs space, too little a result.
_MD5 = re.compile(rb"\b[0-9a-f]{32}(?:\.dir)?(?![0-9a-zA-Z])")
_NAMED_ARTIFACT = re.compile(rb"\bartifacts/([A-Za-z0-9_-]+)")
_SCRATCH = re.compile(r"(.+)-[0-9a-f]{12}")
_LEFT_BEHIND = re.compile(r"\..+\.(tmp|restored)")
GROUP_COLUMNS = ("group", "files", "bytes")


@dataclass(frozen=True)
class Group:
    """Paths of one kind to remove, and the bytes that this frees."""

    name: str
    paths: tuple[Path, ...]
    files: int
    size: int


@dataclass(frozen=True)
class Garbage:
    """What to remove, by group, and what was skipped."""

    groups: tuple[Group, ...]
    skipped: tuple[str, ...]
    resumable: tuple[str, ...]
    """Checkpoints that are kept: the next build resumes from them."""

    @property
    def size(self) -> int:
        return sum(group.size for group in self.groups)

    @property
    def files(self) -> int:
        return sum(group.files for group in self.groups)

    def rows(self) -> list[list[str]]:
        """The groups that are not empty; columns as in GROUP_COLUMNS."""
        return [[group.name, f"{group.files:,}", f"{group.size:,}"] for group in self.groups if group.paths]

    def remarks(self) -> list[tuple[str, str]]:
        """What is kept or skipped, and why."""
        kept = [(f"kept: checkpoint {name}", "the next build resumes from it") for name in self.resumable]
        return kept + [(f"skipped: {name}", "outside the workspace; other workspaces may use it") for name in self.skipped]

    def summary(self, removed: bool) -> str:
        """How many bytes were freed, or would be, in one line."""
        what = f"{self.size:,} bytes in {self.files:,} {'file' if self.files == 1 else 'files'}"
        if removed:
            return f"freed {what}"
        return f"would free {what}" + (" (nothing was removed; to remove them, run: engine gc --force)" if self.files else "")

    def as_data(self, root: Path, removed: bool) -> dict[str, Any]:
        """Plain JSON values, for `--json`; paths are relative to the workspace."""
        groups = [
            {"group": g.name, "files": g.files, "bytes": g.size, "paths": [p.relative_to(root).as_posix() for p in g.paths]}
            for g in self.groups
        ]
        rest = {"skipped": list(self.skipped), "resumable": list(self.resumable)}
        return {"removed": removed, "freed_bytes": self.size, "freed_files": self.files, "groups": groups, **rest}


def collect(project: Project, digests: Sequence[str] = (), history: bool = True, force: bool = False) -> Garbage:
    """Find garbage, and with FORCE remove it; artifacts in DIGESTS are kept; without HISTORY only tips of branches and tags count.

    Raises UserError while a build runs in the workspace, or if the references cannot be read."""
    check_repository(project.root)
    with build_lock(project.root), dvc_lock(project.root):
        _refuse_while_a_step_runs(project.root)
        garbage = find(project, digests, history)
        if force:
            _remove_all(garbage, project.root)
        return garbage


def find(project: Project, digests: Sequence[str], history: bool) -> Garbage:
    """The garbage of a workspace; removes nothing."""
    area, store = Area(project.root), project.store()
    planner = Planner(project.graph, store, project.identities)
    decisions = [planner.decide(step) for step in project.graph]
    records = [run.record for run in area.runs if run.record]
    named, artifacts = referred(documents(project.root, history))
    kept = expanded(named | kept_by_plan(planner, decisions, records) | kept_by_digest(digests, records, store), store)
    runs = [run.path for run in area.runs if not (run.record and run.record.outputs and _md5s(run.record) <= kept)]
    # A listing goes before the files that it names: half a removal leaves no folder that looks whole.
    objects = sorted((path for path, md5 in area.objects.items() if md5 not in kept), key=lambda path: (path.suffix != ".dir", path))
    scratch = area.children(f"{ARTIFACTS}/scratch")
    resumable = [path for path in scratch if _resumes(path.name, planner, decisions)]
    groups = {
        "checkpoints": [path for path in scratch if path not in resumable],
        "temporary folders": [path for path in area.children(ARTIFACTS) if _LEFT_BEHIND.fullmatch(path.name)],
        "logs": [path for path in area.children(f"{dvcfile.TEMPORARY}/adapterbuild") if path.suffix == ".log"],
        "artifacts": forgotten(area.children(ARTIFACTS), artifacts | {step.name for step in project.graph}),
        "run-cache entries": runs,
        "cache objects": objects,
    }
    return Garbage(tuple(_measured(groups)), tuple(dict.fromkeys(area.skipped)), tuple(path.name for path in resumable))


def referred(texts: Iterable[bytes]) -> tuple[set[str], set[str]]:
    """The md5s and the names of artifacts that occur in TEXTS."""
    contents: set[str] = set()
    artifacts: set[str] = set()
    for text in texts:
        contents |= {found.decode() for found in _MD5.findall(text)}
        artifacts |= {found.decode() for found in _NAMED_ARTIFACT.findall(text)}
    return contents, artifacts


def kept_by_plan(planner: Planner, decisions: Iterable[Decision], runs: Iterable[Record]) -> set[str]:
    """md5s that the specs refer to: what the plan keeps or restores, and earlier runs of recipes whose inputs are not known yet."""
    outcomes = [outputs for outputs in planner.outcomes.values() if outputs]
    perhaps = {planner.graph[decision.name].identity for decision in decisions if decision.action is Action.MAYBE}
    now = {step.identity: dvcfile.text_md5(planner.identities[step.name]) for step in planner.graph if step.identity in perhaps}
    waiting = [run.outputs for run in runs if any(path in now and entry.md5 == now[path] for path, entry in run.dependencies.items())]
    return {entry.md5 for outputs in (*outcomes, *waiting) for entry in outputs.values()}


def kept_by_digest(digests: Iterable[str], runs: Iterable[Record], store: Store) -> set[str]:
    """md5s of the runs whose artifact has one of the content addresses; raises UserError for an address that no run has."""
    chosen = list(digests)
    known = list(runs) if chosen else []
    found = {str(number): provenance_of(run, store) for number, run in enumerate(known)}
    addresses = {number: provenance.digest for number, provenance in found.items() if provenance}
    kept: set[str] = set()
    for given in chosen:
        # All of them if several match: keeping too much costs space, too little a result.
        matched = [known[int(number)] for number in matching(given, addresses)]
        if not matched:
            hint = f"give at least {SHORTEST} digits of a digest as listed by: engine adapters"
            raise UserError(f"no artifact in the cache has the content address {given}", hint=hint)
        kept |= {md5 for run in matched for md5 in _md5s(run)}
    return kept


def expanded(named: Iterable[str], store: Store) -> set[str]:
    """NAMED and every file of the folders among them; raises UserError if a listing is damaged, since its files would be removed."""
    kept = set(named)
    for md5 in sorted(name for name in kept if name.endswith(".dir")):
        try:
            kept |= set((store.tree(md5) or {}).values())
        except (ValueError, KeyError, TypeError):
            hint = "remove that file, then rebuild or pull the artifact that it belongs to"
            raise UserError(f"{dvcfile.object_path(md5)} is damaged: the files that it lists are unknown", hint=hint) from None
    return kept


def forgotten(entries: Iterable[Path], named: Container[str]) -> list[Path]:
    """Artifacts, each with its provenance, that belong to no current step and that no `dvc.lock` names."""
    present = {path.name: path for path in entries}
    pairs = [(path, present.get(f"{name}.provenance.json")) for name, path in present.items() if name not in named and path.is_dir()]
    return [path for pair in pairs if pair[1] for path in pair if path]


def _resumes(name: str, planner: Planner, decisions: Iterable[Decision]) -> bool:
    """Whether a step that may run would resume from the checkpoints in the folder NAME."""
    match = _SCRATCH.fullmatch(name)
    step = next((planner.graph[d.name] for d in decisions if match and d.name == match[1] and d.action in (Action.RUN, Action.MAYBE)), None)
    if step is None:
        return False
    return scratch_of(step, planner) in (None, name)


def _md5s(run: Record) -> set[str]:
    return {entry.md5 for entry in run.outputs.values()}


def _measured(groups: Mapping[str, Sequence[Path]]) -> Iterator[Group]:
    """The groups with their files and bytes; a file with several hard links frees its bytes only if all of them are removed."""
    names_left: dict[tuple[int, int], int] = {}
    for name, paths in groups.items():
        files = size = 0
        for path in (file for top in paths for file in _files(top)):
            status = path.lstat()
            inode = (status.st_dev, status.st_ino)
            names_left[inode] = names_left.get(inode, status.st_nlink) - 1
            files += 1
            size += status.st_size if names_left[inode] == 0 else 0
        yield Group(name, tuple(paths), files, size)


def _files(top: Path) -> Iterator[Path]:
    """Every file at or below TOP; a symbolic link counts as a file and is not followed."""
    if top.is_symlink() or not top.is_dir():
        yield top
        return
    for where, folders, files in os.walk(top):
        yield from (Path(where, name) for name in [*files, *folders] if name in files or Path(where, name).is_symlink())


def _refuse_while_a_step_runs(root: Path) -> None:
    """Raise UserError while any process runs a step of this workspace; the runner holds a lock for each step."""
    for pattern in ("adapterbuild/*.lock", f"exps/**/{dvcfile.TEMPORARY}/adapterbuild/*.lock"):
        for path in (root / dvcfile.TEMPORARY).glob(pattern):
            with path.open("a+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    hint = "wait until it has finished, or stop it with ^C"
                    raise UserError(f"nothing was removed: {path.stem} is being built", hint=hint) from None


def _remove_all(garbage: Garbage, root: Path) -> None:
    for path in (path for group in garbage.groups for path in group.paths):
        try:
            remove(path)
        except OSError as error:
            hint = "make it writable, then run the same command again; the files before it have been removed"
            raise UserError(f"cannot remove {path.relative_to(root)}: {error.strerror}", hint=hint) from None
    _prune(garbage, root)


def _prune(garbage: Garbage, root: Path) -> None:
    """Remove the cache folders that are now empty."""
    cache = cache_folder(root)
    parents = {parent for group in garbage.groups for path in group.paths for parent in path.parents if cache in parent.parents}
    for parent in sorted(parents, key=lambda path: -len(path.parts)):
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
