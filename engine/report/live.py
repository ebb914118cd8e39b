"""What of a workspace runs now: its steps, their last lines of progress, and the losses of trainings so far."""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.core.graph import ARTIFACTS
from engine.dvc.dvcfile import TEMPORARY
from stages.process.parent import age
from stages.process.saved import CHECKPOINTS, saved

_STEP_FILES = f"{TEMPORARY}/adapterbuild"
"""Holds a lock of each step, with the process that runs it, and the log of each step that does not run in a terminal alone."""
_SCRATCH = f"{ARTIFACTS}/scratch"
_LOSS = re.compile(r"^train: (\d+)/\d+ steps, loss (\d+\.\d+)", re.MULTILINE)
_INEXACT = 2.0
"""Seconds by which the clock that counts a process's age and that of files may differ."""
_TAIL = 1 << 16
"""Bytes of a log that are read, from its end."""


@dataclass(frozen=True)
class Running:
    """A step that a process runs now."""

    name: str
    seconds: float
    said: str
    """Its last line of progress; empty if it has said nothing, or says it to the terminal of its build."""
    curve: tuple[tuple[float, float], ...] = ()
    """Of a training: optimizer steps and their losses, from its last checkpoint and its log."""


def running(root: Path, steps: Iterable[str]) -> list[Running]:
    """Those of STEPS that run now."""
    found = []
    for name in steps:
        lock = root / _STEP_FILES / f"{name}.lock"
        try:
            process, since = int(lock.read_text()), lock.stat().st_mtime
        except (OSError, ValueError):
            continue  # never built
        # A lock keeps its process after the end: one that began after the lock was written is another with the same id.
        lives = age(process)
        if lives is None or lives < time.time() - since - _INEXACT:
            continue
        losses = dict(_checkpoint(root, name)) | {float(step): float(loss) for step, loss in _LOSS.findall(_log(root, name, since))}
        found.append(Running(name, max(0.0, time.time() - since), said(root, name, since), tuple(sorted(losses.items()))))
    return found


def said(root: Path, name: str, since: float) -> str:
    """The last line of the log of a step that runs SINCE (seconds of the epoch); empty if it has none."""
    return next((line for line in reversed(_log(root, name, since).splitlines()) if line.strip()), "")


def _log(root: Path, name: str, since: float) -> str:
    """The end of the step's log; empty if that is of an earlier run."""
    path = root / _STEP_FILES / f"{name}.log"
    try:
        if path.stat().st_mtime < since:
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _checkpoint(root: Path, name: str) -> Iterator[tuple[float, float]]:
    """The losses in the training's newest checkpoint."""
    folders = [path for path in (root / _SCRATCH).glob(f"{name}-*/{CHECKPOINTS}") if path.parent.name.rpartition("-")[0] == name]
    try:
        newest = saved(max(folders, key=lambda path: path.stat().st_mtime).parent)
    except (OSError, ValueError):
        return  # none yet, or it was removed meanwhile
    yield from ((float(step), loss) for step, loss in enumerate(newest.losses if newest else (), 1))


def stamp(root: Path, read: Iterable[Path] = ()) -> str:
    """A text that changes when a step starts, says something, writes a checkpoint, or ends, and when a spec or a file of READ changes."""
    folders = [root / _STEP_FILES, root / "metrics", root / "metrics/experiments", root / "plots"]
    files = {entry for folder in folders if folder.is_dir() for entry in folder.iterdir() if entry.is_file()}
    files |= {*(root / "specs").rglob("*.toml"), *(root / _SCRATCH).glob(f"*/{CHECKPOINTS}/step-*.safetensors"), root / "dvc.lock", *read}
    newest = 0
    for path in files:
        try:
            newest = max(newest, path.stat().st_mtime_ns)
        except OSError:
            continue
    return f"{len(files)}-{newest}"
