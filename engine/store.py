"""The one seam to the disk: what is in the workspace, what DVC recorded, what its caches hold."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from engine import dvcfile
from engine.dvcfile import Entry, Record
from engine.errors import Location, UserError
from engine.hashing import Hashes


class Store(Protocol):
    """What a plan asks of the world; a dictionary can answer it in tests."""

    def entry(self, path: str) -> Entry | None:
        """Content of a path of the workspace, None where nothing is there."""

    def record(self, step: str) -> Record | None:
        """The last recorded run of a step."""

    def run(self, key: str) -> Record | None:
        """The newest run that the run cache holds for a key."""

    def runs_with(self, path: str, md5: str) -> bool:
        """Whether the run cache holds any run that read this content at this path."""

    def holds(self, entry: Entry) -> bool:
        """Whether the cache holds this content, for a folder every file of it."""

    def holds_intact(self, entry: Entry) -> bool:
        """As `holds`, and nothing of it is damaged."""

    def tree(self, md5: str) -> Mapping[str, str] | None:
        """The listing of a folder, by path inside it, None where the cache does not hold it."""

    def read(self, md5: str) -> bytes | None:
        """A file's content from the cache."""

    def metrics(self, path: str) -> Mapping[str, Any]:
        """A metrics file of the workspace, empty where there is none."""


@dataclass
class Disk:
    """The store of a real workspace."""

    root: Path
    hashes: Hashes
    _entries: dict[str, Entry | None] = field(default_factory=dict)

    def entry(self, path: str) -> Entry | None:
        """Content of a path of the workspace, None where nothing is there."""
        if path not in self._entries:
            self._entries[path] = self.hashes.entry(path, self._counts)
        return self._entries[path]

    @cached_property
    def _ignored(self) -> tuple[str, ...]:
        path = self.root / ".dvcignore"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))

    def _counts(self, name: str) -> bool:
        """Whether DVC counts a file or folder of this name; our .dvcignore holds plain names and `*.ending` patterns only."""
        return not any(fnmatch(name, pattern) or fnmatch(name.rstrip("/"), pattern) for pattern in self._ignored)

    @cached_property
    def _records(self) -> dict[str, Record]:
        path = self.root / dvcfile.LOCK
        if not path.exists():
            return {}
        try:
            return dvcfile.parse_lock(path.read_bytes())
        except ValueError as error:
            raise UserError(f"dvc.lock cannot be read: {error}", Location("dvc.lock"), "restore it: git checkout dvc.lock") from None

    def record(self, step: str) -> Record | None:
        """The last recorded run of a step."""
        return self._records.get(step)

    def run(self, key: str) -> Record | None:
        """The newest run that the run cache holds for a key."""
        folder = self.root / dvcfile.run_folder(key)
        if not folder.is_dir():
            return None
        entries = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        return dvcfile.parse_record(entries[0].read_bytes()) if entries else None

    @cached_property
    def _read_by_runs(self) -> set[tuple[str, str]]:
        """Every (path, md5) that any run of the run cache read."""
        runs = self.root / dvcfile.CACHE / "runs"
        records = (dvcfile.parse_record(path.read_bytes()) for path in runs.glob("*/*/*")) if runs.is_dir() else ()
        return {(path, entry.md5) for record in records for path, entry in record.dependencies.items()}

    def runs_with(self, path: str, md5: str) -> bool:
        """Whether the run cache holds any run that read this content at this path."""
        return (path, md5) in self._read_by_runs

    def holds(self, entry: Entry) -> bool:
        """Whether the cache holds this content, for a folder every file of it."""
        return self._each_object(entry, lambda path: path.exists())

    def holds_intact(self, entry: Entry) -> bool:
        """As `holds`, and every object is still what its name says; DVC itself trusts any read-only object."""
        return self._each_object(entry, self._intact)

    def _intact(self, path: Path) -> bool:
        found = self.hashes.entry(str(path))
        return found is not None and found.md5 == path.parent.name + path.name.removesuffix(".dir")

    def _each_object(self, entry: Entry, test: Callable[[Path], bool]) -> bool:
        if not test(self.root / dvcfile.object_path(entry.md5)):
            return False
        files = self.tree(entry.md5) if entry.is_folder else {}
        return files is not None and all(test(self.root / dvcfile.object_path(md5)) for md5 in set(files.values()))

    def damaged(self, entry: Entry) -> list[Path]:
        """The objects of this content that are not what their names say."""
        files = (self.tree(entry.md5) or {}) if entry.is_folder else {}
        paths = [self.root / dvcfile.object_path(md5) for md5 in (entry.md5, *files.values())]
        return [path for path in dict.fromkeys(paths) if path.exists() and not self._intact(path)]

    def tree(self, md5: str) -> Mapping[str, str] | None:
        """The listing of a folder, by path inside it, None where the cache does not hold it."""
        data = self.read(md5)
        return None if data is None else dvcfile.parse_tree(data)

    def read(self, md5: str) -> bytes | None:
        """A file's content from the cache."""
        path = self.root / dvcfile.object_path(md5)
        return path.read_bytes() if path.exists() else None

    def metrics(self, path: str) -> Mapping[str, Any]:
        """A metrics file of the workspace, empty where there is none."""
        full = self.root / path
        if not full.exists():
            return {}
        try:
            content = json.loads(full.read_bytes())
        except ValueError:
            return {}  # an edited metrics file is reported as a changed output; its numbers are of no use here
        return content if isinstance(content, dict) else {}
