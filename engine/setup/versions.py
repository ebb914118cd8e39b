"""The workspace's lock of versions: what it holds, where it differs from what is installed, and what moving it reruns."""

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


def that_matter() -> tuple[str, ...]:
    """The packages whose version decides the result of any kind of step, or of any member of a family, by name."""
    from engine.core.part import Part
    from stages.kinds import KINDS

    def below(part: type[Part]) -> Iterator[type[Part]]:
        yield part
        for inner in part.__subclasses__():
            yield from below(inner)

    kinds = (name for kind in KINDS.values() for name in kind.environment)
    return tuple(sorted({*kinds, *(name for part in below(Part) for name in part.environment)}))


def here() -> dict[str, str | None]:
    """What is installed of the packages that matter; None of those that are not."""
    return {name: find(name) for name in that_matter()}


@dataclass(frozen=True)
class Moved:
    """What writing the lock did, or would do."""

    versions: tuple[tuple[str, str | None, str], ...]
    """Package, old version (None for one that the lock did not name) and new version."""
    behind: tuple[tuple[str, str, str], ...]
    """Package, version of the lock and installed version, where they differ and the lock stays."""
    absent: tuple[str, ...]
    """The packages that matter and are not installed; what the lock says of them stays."""
    reruns: tuple[Decision, ...] = ()
    """The steps that will run, or may, because of it."""

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


def first_lock(root: Path) -> Moved | None:
    """Write the first lock of a workspace from what is installed; None where it has one, of whatever tool."""
    return None if any((root / name).exists() for name in (LOCK, REQUIREMENTS)) else _write(root, {}, upgrade=False)


def lock(root: Path) -> Moved:
    """Write the lock, or add to it what it does not name; versions that it names stay."""
    if (root / REQUIREMENTS).exists() and not (root / LOCK).exists():
        what = f"{REQUIREMENTS} names this workspace's versions already"
        raise UserError(what, Location(REQUIREMENTS), f"edit that file; or remove it, and let `engine lock` write {LOCK}")
    return _write(root, parse_lock(root), upgrade=False)


def upgrade(project: Project) -> Moved:
    """Move the lock to what is installed, and say what will rerun; nothing is written where the specs have mistakes."""
    root = project.root
    if not (root / LOCK).exists():
        return lock(root)
    try:
        old = parse_lock(root)
    except UserError:
        # Damaged, as by a merge: what it said is not known, so that everything is planned as it stands.
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
    return Moved(found.versions, (), found.absent, reruns)


def _write(root: Path, old: Mapping[str, str], upgrade: bool) -> Moved:
    found = _moved(old, upgrade)
    if found.versions:
        write_text(root / LOCK, lock_text(_merged(old, found)))
    return found


def _moved(old: Mapping[str, str], upgrade: bool) -> Moved:
    known = {normal(name): version for name, version in old.items()}
    versions, behind, absent = [], [], []
    for name, have in here().items():
        locked = known.get(normal(name))
        if have is None:
            absent.append(name)
        elif locked is None or (upgrade and locked != have):
            versions.append((name, locked, have))
        elif locked != have:
            behind.append((name, locked, have))
    return Moved(tuple(versions), tuple(behind), tuple(absent))


def _merged(old: Mapping[str, str], found: Moved) -> dict[str, str]:
    new = {name: version for name, _, version in found.versions}
    moved = {normal(name) for name in new}
    return {name: version for name, version in old.items() if normal(name) not in moved} | new


def drift(project: Project) -> list[Problem]:
    """Where what is installed is not what the lock says, of the packages that the specs' steps name: those steps would refuse to run.

    A package that is not installed here is no matter: specs are checked and planned on machines that build nothing.
    """
    wanted, have = project.outline.versions, _beside()
    return [*_unnamed(project.root, wanted), *_differing(project, wanted, have)]


def _unnamed(root: Path, wanted: Mapping[str, str]) -> Iterator[Problem]:
    """The packages that the specs' steps name and the lock does not, as a package that was installed later."""
    named = {normal(name) for name in parse_lock(root)}
    missing = [name for name in wanted if normal(name) not in named] if named and not (root / REQUIREMENTS).exists() else []
    for name in missing:
        yield Problem(
            f"{LOCK} does not name {name}: another version of it would rerun the steps that name it",
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
    said = next((name for name in (LOCK, REQUIREMENTS) if (project.root / name).exists()), "the identity")
    return [
        Problem(
            f"{name} {here[name]} is installed, {said} says {wanted[name]}: steps that name it would refuse to run",
            _place(project.root, name),
            way_out(project.root, {name: wanted[name]}),
            "warning",
        )
        for name in names
    ]


def _refused(project: Project, have: Mapping[str, str]) -> set[str]:
    """Those of the installed versions HAVE with which a step's identity would be another one; others are known to leave the same bytes."""
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
    """The installed versions, by the names of folders alone: `importlib.metadata` takes longer than a plan of what is up to date."""
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
