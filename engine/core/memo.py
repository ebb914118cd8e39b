"""Values cached between runs, in the user's cache folder, so that a plan writes nothing into the workspace. All can be recomputed."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

# A file modified this recently may change again with the same timestamp, so values derived from it are not cached.
RACY_NANOSECONDS = 2_000_000_000

_BASE = "adapterbuild"


def memo_path(root: Path, sort: str = "hashes") -> Path:
    """Path of the cache file for one SORT of values of the workspace at ROOT."""
    return shared_path(f"{sort}-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}")


def shared_path(sort: str) -> Path:
    """Path of the cache file for one SORT of values that all workspaces share."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / _BASE / f"{sort}.json"


def stamp(status: os.stat_result) -> list[int]:
    """Inode, size, mtime and ctime: they change with the file, except for two edits in one clock tick; `touch` cannot reset the ctime."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def stamp_of(path: Path) -> list[int] | None:
    """The stamp of PATH; None if it does not exist."""
    return stamp(path.stat()) if path.exists() else None


def settled(status: os.stat_result) -> bool:
    """Whether the mtime is old enough that a later edit must change it; call this after reading the file."""
    return time.time_ns() - status.st_mtime_ns > RACY_NANOSECONDS


def load(path: Path | None) -> Any:
    """The value cached at PATH; None if it is missing or damaged."""
    try:
        data = path.read_bytes() if path else b""
    except OSError:
        return None
    checksum, _, body = data.partition(b"\n")
    return json.loads(body) if checksum and checksum == _checksum(body) else None


def save(path: Path | None, value: Any) -> None:
    """Cache VALUE at PATH atomically; does nothing if the folder is not writable, so that the next run only takes longer."""
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
