"""What is remembered between runs, and never needed: in the user's cache, so that a plan writes nothing into the workspace."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

# A file that changed this recently may change again without a change of its time: what was read from it is not remembered.
RACY_NANOSECONDS = 2_000_000_000

_BASE = "adapterbuild"


def memo_path(root: Path, sort: str = "hashes") -> Path:
    """Where a SORT of things is remembered for the workspace at ROOT."""
    return shared_path(f"{sort}-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}")


def shared_path(sort: str) -> Path:
    """Where a SORT of things is remembered that is the same for all workspaces."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / _BASE / f"{sort}.json"


def stamp(status: os.stat_result) -> list[int]:
    """What changes whenever a file does, save for a second edit within one tick of the clock; `touch` cannot set the change time back."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def stamp_of(path: Path) -> list[int] | None:
    """The stamp of what is at PATH; None where nothing is."""
    return stamp(path.stat()) if path.exists() else None


def settled(status: os.stat_result) -> bool:
    """Whether the file's time is old enough that a later edit must get another one; to be asked after the file was read."""
    return time.time_ns() - status.st_mtime_ns > RACY_NANOSECONDS


def load(path: Path | None) -> Any:
    """The value remembered at PATH; None where there is none or it is damaged: all of it can be computed again."""
    try:
        data = path.read_bytes() if path else b""
    except OSError:
        return None
    checksum, _, body = data.partition(b"\n")
    return json.loads(body) if checksum and checksum == _checksum(body) else None


def save(path: Path | None, value: Any) -> None:
    """Remember VALUE, whole or not at all; where the folder cannot be written the next run takes longer, nothing else."""
    if path is None or not os.access(_existing(path.parent), os.W_OK):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    body = json.dumps(value, separators=(",", ":")).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(_checksum(body) + b"\n" + body)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
