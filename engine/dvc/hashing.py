"""Hashes of files and folders as DVC computes them, cached by path, inode, size and times."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR

from engine.core import memo
from engine.core.memo import memo_path
from engine.dvc.dvcfile import Entry, tree_md5

__all__ = ["Hashes", "memo_path"]

Known = list[int | str]
"""The stamp of a file, and its md5."""


@dataclass
class Hashes:
    """Hashes files below ROOT; caches the hashes, with a MEMO file also between runs of the program."""

    root: Path
    memo: Path | None = None
    trees: dict[str, dict[str, str]] = field(default_factory=dict)
    """The listing of every folder hashed so far, by the folder's md5."""
    _known: dict[str, Known] = field(default_factory=dict)
    _moved: bool = False

    def __post_init__(self) -> None:
        self._known = memo.load(self.memo) or {}

    def entry(self, path: str, keep: Callable[[str], bool] = lambda path: True) -> Entry | None:
        """The content of PATH (absolute or relative to the root); None if it does not exist. KEEP selects paths inside folders."""
        full = os.path.join(self.root, path)  # noqa: PTH118 - plain strings: this runs for every output of every step
        try:
            status = os.stat(full)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not S_ISDIR(status.st_mode):
            return Entry(self._md5(full, status), bool(status.st_mode & 0o100), status.st_size)
        files = dict(self._files(full, keep))
        listing = {name: md5 for name, (md5, _) in files.items()}
        md5 = tree_md5(listing)
        self.trees[md5] = listing
        return Entry(md5, False, sum(size for _, size in files.values()), len(files))

    def listing(self, path: str) -> dict[str, str]:
        """The md5 of every file in a folder, by its path inside the folder."""
        return {name: md5 for name, (md5, _) in self._files(str(self.root / path), lambda path: True)}

    def _files(self, folder: str, keep: Callable[[str], bool], inside: str = "") -> Iterator[tuple[str, tuple[str, int]]]:
        # os.walk would take longer than everything else here.
        with os.scandir(folder) as found:
            entries = list(found)
        for item in entries:
            if not item.is_dir():
                if keep(item.path):
                    status = os.stat(item.path)  # noqa: PTH116
                    yield f"{inside}{item.name}", (self._md5(item.path, status), status.st_size)
            # DVC skips a workspace inside a workspace.
            elif not item.is_symlink() and keep(item.path + "/") and not os.path.exists(f"{item.path}/.dvc"):  # noqa: PTH110
                yield from self._files(item.path, keep, f"{inside}{item.name}/")

    def _md5(self, full: str, status: os.stat_result) -> str:
        stamp = memo.stamp(status)
        known = self._known.get(full)
        if known and known[:-1] == stamp:
            return str(known[-1])
        with open(full, "rb") as file:  # noqa: PTH123 - a string path saves a third of the time here
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if memo.settled(status):
            self._known[full] = [*stamp, md5]
            self._moved = True
        return md5

    def save(self) -> None:
        """Cache the hashes for the next run; if the file cannot be written, the next run only takes longer."""
        if self._moved:
            memo.save(self.memo, self._known)
            self._moved = False
