"""Hashes of files and folders as DVC computes them, remembered by (path, inode, size, mtime_ns)."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.dvcfile import Entry, tree_md5

# A file that changed this recently may change again without a change of its time: it is hashed, but not remembered.
_RACY_NANOSECONDS = 2_000_000_000

Stamp = tuple[int, int, int]


@dataclass
class Hashes:
    """Hashes files below ROOT; with a MEMO file, across runs of the program."""

    root: Path
    memo: Path | None = None
    _known: dict[str, tuple[Stamp, str]] = field(default_factory=dict)
    _moved: bool = False

    def __post_init__(self) -> None:
        if self.memo and self.memo.exists():
            try:
                content = json.loads(self.memo.read_bytes())
                self._known = {path: ((a, b, c), md5) for path, (a, b, c, md5) in content.items()}
            except (ValueError, TypeError):
                self._known = {}  # a memo is no truth: without it everything is hashed again

    def entry(self, path: str, keep: Callable[[str], bool] = lambda name: True) -> Entry | None:
        """Content of PATH (relative to the root, or absolute); None where nothing is there; KEEP says which names count in folders."""
        full = self.root / path
        if full.is_dir():
            files = dict(self._files(full, keep))
            return Entry(
                tree_md5({name: md5 for name, (md5, _) in files.items()}), False, sum(size for _, size in files.values()), len(files)
            )
        if not full.exists():
            return None
        status = full.stat()
        return Entry(self._md5(str(full), status), bool(status.st_mode & 0o100), status.st_size)

    def listing(self, path: str) -> dict[str, str]:
        """The md5 of every file of a folder, by its path inside the folder."""
        return {name: md5 for name, (md5, _) in self._files(self.root / path, lambda name: True)}

    def _files(self, folder: Path, keep: Callable[[str], bool]) -> Iterator[tuple[str, tuple[str, int]]]:
        for where, folders, files in os.walk(folder):
            # DVC leaves a workspace inside a workspace alone.
            folders[:] = [name for name in folders if keep(name + "/") and not Path(where, name, ".dvc").exists()]
            for name in files:
                if keep(name):
                    full = Path(where, name)
                    status = full.stat()
                    yield full.relative_to(folder).as_posix(), (self._md5(str(full), status), status.st_size)

    def _md5(self, full: str, status: os.stat_result) -> str:
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._known.get(full)
        if known and known[0] == stamp:
            return known[1]
        with open(full, "rb") as file:  # noqa: PTH123 - a string path saves a third of the time here
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if time.time_ns() - status.st_mtime_ns > _RACY_NANOSECONDS:
            self._known[full] = (stamp, md5)
            self._moved = True
        return md5

    def save(self) -> None:
        """Remember what was hashed, for the next run; a memo that cannot be written costs time, nothing else."""
        if self.memo and self._moved and os.access(_existing(self.memo.parent), os.W_OK):
            self.memo.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.memo.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps({path: [*stamp, md5] for path, (stamp, md5) in self._known.items()}))
            temporary.replace(self.memo)


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def memo_path(root: Path) -> Path:
    """Where the hashes of a workspace are remembered: in the user's cache, so that a plan writes nothing into the workspace."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "adapterbuild" / f"hashes-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"
