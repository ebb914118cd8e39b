"""The workspace's lock of package versions: writes it, compares it with the installed versions, and says what an upgrade reruns."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.errors import Location, Problem, UserError
from engine.dvc import dvcfile
from engine.identity.environment import LOCK, REQUIREMENTS, find, lock_text, normal, parse_lock, way_out
from engine.plan.decide import Action, Decision
from engine.plan.project import Project, write_text


def relevant_packages() -> tuple[str, ...]:
    """Names of the packages whose version affects the result of any kind of step or any member of a family."""
    from engine.core.part import Part
    from stages.kinds import KINDS

    def below(part: type[Part]) -> Iterator[type[Part]]:
        yield part
        for inner in part.__subclasses__():
            yield from below(inner)

    kinds = (name for kind in KINDS.values() for name in kind.environment)
    return tuple(sorted({*kinds, *(name for part in below(Part) for name in part.environment)}))


def installed_versions() -> dict[str, str | None]:
    """The installed versions of these packages; None if a package is not installed."""
    return {name: find(name) for name in relevant_packages()}


@dataclass(frozen=True)
class LockChange:
    """What writing the lock changed, or would change."""

    versions: tuple[tuple[str, str | None, str], ...]
    """Package, old version (None if it was not locked) and new version."""
    behind: tuple[tuple[str, str, str], ...]
    """Package, locked version and installed version, where they differ and the lock is not changed."""
    absent: tuple[str, ...]
    """Relevant packages that are not installed; their locked versions are kept."""
    reruns: tuple[Decision, ...] = ()
    """The steps that will or may run because of it."""

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        return {
            "file": LOCK,
            "moved": [{"package": name, "old": old, "new": new} for name, old, new in self.versions],
            "behind": [{"package": name, "locked": locked, "installed": have} for name, locked, have in self.behind],
            "not_installed": list(self.absent),
            "steps": [decision.as_data() for decision in self.reruns],
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """One line for each version that moved and each step that reruns, with its reasons."""
        for name, old, new in self.versions:
            yield f"{name}  {old} → {new}" if old else f"{name}  {new}", ""
        for decision in self.reruns:
            yield f"{decision.action!s:<6}{decision.name}", "; ".join(map(str, decision.reasons))


def first_lock(root: Path) -> LockChange | None:
    """Write the first lock of a workspace from the installed versions; None if it already has a lock of any tool."""
    return None if any((root / name).exists() for name in (LOCK, REQUIREMENTS)) else _write(root, {}, upgrade=False)


def lock(root: Path) -> LockChange:
    """Write the lock, or add missing packages to it; locked versions are kept."""
    if (root / REQUIREMENTS).exists() and not (root / LOCK).exists():
        what = f"{REQUIREMENTS} already locks this workspace's versions"
        raise UserError(what, Location(REQUIREMENTS), f"edit that file, or remove it and write {LOCK} with: engine lock")
    return _write(root, parse_lock(root), upgrade=False)


def upgrade(project: Project) -> LockChange:
    """Update the lock to the installed versions, and say what will rerun; writes nothing if the specs have errors."""
    root = project.root
    if not (root / LOCK).exists():
        return lock(root)
    try:
        old = parse_lock(root)
    except UserError:
        # Damaged, such as by a merge: the locked versions are unknown, so everything is planned without them.
        old = {}
    found = _moved(old, upgrade=True)
    before, after = (Project(project.workspace, pins) for pins in (old, _merged(old, found)))
    planned = before.plan() if old else None
    reruns = tuple(
        decision
        for decision in after.plan().decisions
        if decision.action in (Action.RUN, Action.MAYBE)
        and decision.name != dvcfile.RESOLVE
        and (planned is None or decision.action is not planned[decision.name].action)
    )
    write_text(root / LOCK, lock_text(_merged(old, found)))
    return LockChange(found.versions, (), found.absent, reruns)


def _write(root: Path, old: Mapping[str, str], upgrade: bool) -> LockChange:
    found = _moved(old, upgrade)
    if found.versions:
        write_text(root / LOCK, lock_text(_merged(old, found)))
    return found


def _moved(old: Mapping[str, str], upgrade: bool) -> LockChange:
    known = {normal(name): version for name, version in old.items()}
    versions, behind, absent = [], [], []
    for name, have in installed_versions().items():
        locked = known.get(normal(name))
        if have is None:
            absent.append(name)
        elif locked is None or (upgrade and locked != have):
            versions.append((name, locked, have))
        elif locked != have:
            behind.append((name, locked, have))
    return LockChange(tuple(versions), tuple(behind), tuple(absent))


def _merged(old: Mapping[str, str], found: LockChange) -> dict[str, str]:
    new = {name: version for name, _, version in found.versions}
    moved = {normal(name) for name in new}
    return {name: version for name, version in old.items() if normal(name) not in moved} | new


def drift(project: Project) -> list[Problem]:
    """A problem for each package of the specs' steps whose installed version differs from the lock, so that the steps would refuse to run.

    A package that is not installed is no problem: specs are also checked and planned on machines that build nothing.
    """
    wanted, have = project.outline.versions, _beside()
    return [*_unnamed(project.root, wanted), *_differing(project, wanted, have)]


def _unnamed(root: Path, wanted: Mapping[str, str]) -> Iterator[Problem]:
    """A problem for each package of the specs' steps that the lock lacks, such as one that was installed later."""
    named = {normal(name) for name in parse_lock(root)}
    missing = [name for name in wanted if normal(name) not in named] if named and not (root / REQUIREMENTS).exists() else []
    for name in missing:
        yield Problem(
            f"{LOCK} does not lock {name}: another version of it would rerun the steps that use it",
            Location(LOCK),
            "run: engine lock",
            "warning",
        )


def _differing(project: Project, wanted: Mapping[str, str], have: Mapping[str, str]) -> list[Problem]:
    differing = {name: version for name, version in wanted.items() if have.get(normal(name), version) != version}
    if not differing:
        return []
    here = {name: found for name in differing if (found := find(name)) not in (None, wanted[name])}
    names = sorted(_refused(project, {name: found for name, found in here.items() if found}))
    source = next((name for name in (LOCK, REQUIREMENTS) if (project.root / name).exists()), "the identity")
    return [
        Problem(
            f"{name} {here[name]} is installed, but {source} has {wanted[name]}: steps that use it would refuse to run",
            _place(project.root, name),
            way_out(project.root, {name: wanted[name]}),
            "warning",
        )
        for name in names
    ]


def _refused(project: Project, have: Mapping[str, str]) -> set[str]:
    """The packages whose installed version in HAVE would change a step's identity; the others are known to leave the same bytes."""
    behaviours, found = project.behaviours, set[str]()
    for text in project.identities.values():
        identity = json.loads(text)
        then = {name: project.environment.version(name) for name in identity["environment"]}
        alike = behaviours.environment({name: have.get(name, version) for name, version in then.items()}, identity["code"])
        if alike != identity["environment"]:
            found |= {name for name in have if name in identity["environment"]}
    return found


def _place(root: Path, package: str) -> Location | None:
    for file in (LOCK, REQUIREMENTS):
        path = root / file
        for number, line in enumerate(path.read_text("utf-8").splitlines() if path.exists() else (), 1):
            if normal(line.partition("==")[0].partition("[")[0].strip()) == normal(package):
                return Location(file, number, 1, line)
    return None


def _beside() -> dict[str, str]:
    """The installed versions, from folder names only: `importlib.metadata` takes longer than an up-to-date plan."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - plain strings: every plan does it
        except OSError:
            continue
        for name in names:
            if name.endswith(".dist-info"):
                package, _, version = name.removesuffix(".dist-info").partition("-")
                found.setdefault(normal(package), version.partition("+")[0])
    return found
