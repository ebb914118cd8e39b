"""Builds that have left their jobs running on a cluster: noted in the workspace, by executor, for `engine wait`."""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.dvc.dvcfile import TEMPORARY
from engine.dvc.writing import replace_with


@dataclass(frozen=True)
class Detached:
    """What was to be built on an executor."""

    on: str
    targets: tuple[str, ...]
    """Specs and steps; none: everything."""
    jobs: int | None


def detached(root: Path) -> list[Detached]:
    """The builds that have left the workspace ROOT; what is no such note counts as none."""
    try:
        found = json.loads(_path(root).read_text("utf-8"))
        return [Detached(each["on"], tuple(each["targets"]), each["jobs"]) for each in found]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def note(root: Path, new: Detached) -> None:
    """Add a build to the notes of ROOT; with one on the same executor it becomes one."""
    others = []
    for each in detached(root):
        if each.on == new.on:
            targets = dict.fromkeys((*each.targets, *new.targets)) if each.targets and new.targets else ()
            new = Detached(new.on, tuple(targets), new.jobs)
        else:
            others.append(each)
    _write(root, [*others, new])


def forget(root: Path, on: str) -> None:
    """Remove the note of the build on the executor ON."""
    _write(root, [each for each in detached(root) if each.on != on])


def _write(root: Path, found: list[Detached]) -> None:
    if found:
        _path(root).parent.mkdir(parents=True, exist_ok=True)
        replace_with(_path(root), json.dumps([asdict(each) for each in found]).encode())
    else:
        with contextlib.suppress(FileNotFoundError):
            _path(root).unlink()


def _path(root: Path) -> Path:
    return root / TEMPORARY / "adapterbuild" / "detached.json"
