"""The one seam to the disk: what is in the workspace, what DVC recorded, what its caches hold."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from engine.core import memo
from engine.core.errors import Location, UserError
from engine.core.graph import Step
from engine.dvc import dvcfile, records
from engine.dvc.config import cache_folder, remote_folder
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.hashing import Hashes
from engine.dvc.ignore import Ignored
from engine.dvc.records import RunRecord


class Store(Protocol):
    """What a plan asks of the world; a dictionary can answer it in tests."""

    def entry(self, path: str) -> Entry | None:
        """Content of a path of the workspace, None where nothing is there."""

    def record(self, step: str) -> Record | None:
        """The last recorded run of a step."""

    def runs(self, key: str) -> Iterable[Record | None]:
        """Every run that the run cache holds for a key, the newest first; None for an entry that cannot be read."""

    def runs_with(self, path: str, md5: str) -> bool:
        """Whether the run cache holds any run that read this content at this path."""

    def holds(self, entry: Entry) -> bool:
        """Whether the cache holds this content, for a folder every file of it."""

    def holds_intact(self, entry: Entry) -> bool:
        """As `holds`, and nothing of it is damaged."""

    def obtainable(self, entry: Entry) -> bool:
        """As `holds_intact`, where a folder that is DVC's remote counts too."""

    def obtain(self, md5: str) -> bytes | None:
        """As `read`, from that folder too."""

    def tree(self, md5: str) -> Mapping[str, str] | None:
        """The listing of a folder, by path inside it, None where the cache does not hold it."""

    def read(self, md5: str) -> bytes | None:
        """A file's content from the cache."""

    def metrics(self, path: str) -> Mapping[str, Any]:
        """A metrics file of the workspace, empty where there is none."""

    def ran(self, step: Step) -> RunRecord | None:
        """The record of the run that made what lies in the workspace."""

    def run_record(self, step: str, statement: str) -> RunRecord | None:
        """The record of the run that made a statement (its md5), as the cache has it."""


@dataclass
class Disk:
    """The store of a real workspace."""

    root: Path
    hashes: Hashes
    _entries: dict[str, Entry | None] = field(default_factory=dict)
    _records: dict[str, Record] = field(default_factory=dict)
    """The recorded runs that were asked for."""
    _trees: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """The listings of folders that the cache holds, by md5."""

    @cached_property
    def cache(self) -> Path:
        """The folder of DVC's cache."""
        return cache_folder(self.root)

    @cached_property
    def remote(self) -> Path | None:
        """The default remote of DVC, where that is a folder."""
        return remote_folder(self.root)

    def entry(self, path: str) -> Entry | None:
        """Content of a path of the workspace, None where nothing is there."""
        if path not in self._entries:
            inside = self._inside(path)
            hidden = inside is not None and not self._ignored.reaches(inside)
            self._entries[path] = None if hidden else self.hashes.entry(path if inside is None else inside.rstrip("/"), self._counts)
        return self._entries[path]

    def fresh(self, path: str) -> Entry | None:
        """As `entry`, looked at once more."""
        self._entries.pop(path, None)
        return self.entry(path)

    def _inside(self, path: str) -> str | None:
        """PATH relative to the workspace, of a folder with `/` at its end; None where it leads out of the workspace."""
        if os.path.isabs(path) or ".." in path:  # noqa: PTH117
            path = os.path.relpath(os.path.abspath(self.root / path), os.path.abspath(self.root))  # noqa: PTH100
            if path == os.pardir or path.startswith(f"..{os.sep}"):
                return None
        path = os.path.normpath(path)
        return f"{path}/" if os.path.isdir(self.root / path) else path  # noqa: PTH112

    @cached_property
    def _ignored(self) -> Ignored:
        return Ignored(self.root)

    def _counts(self, full: str) -> bool:
        """Whether DVC counts a path inside a folder that it counts; outside of the workspace it counts everything."""
        top = os.path.join(self.hashes.root, "")  # noqa: PTH118 - asked of every file
        return not full.startswith(top) or full.startswith(f"{top}../") or self._ignored.counts(full[len(top) :])

    @cached_property
    def _packed_records(self) -> Mapping[str, list[Any]]:
        """All recorded runs, packed; YAML is slow, so what `dvc.lock` holds is remembered as JSON beside the hashes."""
        path = self.root / dvcfile.LOCK
        if not path.exists():
            return {}
        status = path.stat()
        mirror = self.hashes.memo.with_suffix(".lock") if self.hashes.memo else None
        found = memo.load(mirror)
        if found and found["stamp"] == [dvcfile.FORMAT, *memo.stamp(status)]:
            stages: dict[str, list[Any]] = found["stages"]
            return stages
        packed = {name: dvcfile.packed(record) for name, record in self._parsed_lock(path).items()}
        if memo.settled(status):
            memo.save(mirror, {"stamp": [dvcfile.FORMAT, *memo.stamp(status)], "stages": packed})
        return packed

    @staticmethod
    def _parsed_lock(path: Path) -> dict[str, Record]:
        data = path.read_bytes()
        try:
            return dvcfile.parse_lock(data)
        except ValueError as error:
            from engine.dvc.conflicts import mended

            if merge := mended(path.parent, path.name):
                return dvcfile.parse_lock(merge.text)
            raise UserError(
                f"dvc.lock cannot be read: {error}", Location("dvc.lock"), "restore it: git checkout HEAD -- dvc.lock"
            ) from None

    def record(self, step: str) -> Record | None:
        """The last recorded run of a step."""
        if step not in self._records and step in self._packed_records:
            self._records[step] = dvcfile.unpacked(self._packed_records[step])
        return self._records.get(step)

    def runs(self, key: str) -> Iterator[Record | None]:
        """Every run that the run cache holds for a key, the newest first; None for an entry that cannot be read."""
        folder = self.cache / dvcfile.run_folder(key)
        entries = list(folder.iterdir()) if folder.is_dir() else []
        for path in sorted(entries, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            yield _run_in(path)

    @cached_property
    def _runs_naming(self) -> Mapping[str, list[Path]]:
        """The entries of the run cache by the md5s in their text; parsing all of them would take seconds for a thousand."""
        found: dict[str, list[Path]] = defaultdict(list)
        for path in (self.cache / "runs").glob("*/*/*"):
            for md5 in dvcfile.md5s_in(path.read_bytes()):
                found[md5].append(path)
        return found

    def runs_with(self, path: str, md5: str) -> bool:
        """Whether the run cache holds any run that read this content at this path."""
        runs = (_run_in(file) for file in self._runs_naming.get(md5.removesuffix(".dir"), ()))
        return any(run and (entry := run.dependencies.get(path)) and entry.md5 == md5 for run in runs)

    def holds(self, entry: Entry) -> bool:
        """Whether the cache holds this content, for a folder every file of it."""
        return self._each_object(entry, os.path.exists)

    def holds_intact(self, entry: Entry) -> bool:
        """As `holds`, and every object is still what its name says; DVC itself trusts any read-only object."""
        return self._each_object(entry, self._intact)

    def obtainable(self, entry: Entry) -> bool:
        """As `holds_intact`, where a folder that is DVC's remote counts too."""
        if self.holds_intact(entry):
            return True
        if self.remote is None:
            return False
        data = self.obtain(entry.md5)
        files = dvcfile.parse_tree(data) if data and entry.is_folder else {}
        return data is not None and all(
            any(self._intact(f"{folder}/{dvcfile.object_path(md5)}") for folder in (self.cache, self.remote))
            for md5 in {entry.md5, *files.values()}
        )

    def obtain(self, md5: str) -> bytes | None:
        """A file's content from the cache, or from DVC's remote where that is a folder."""
        data = self.read(md5)
        return data if data is not None or self.remote is None else _content(f"{self.remote}/{dvcfile.object_path(md5)}")

    def _intact(self, path: str) -> bool:
        found = self.hashes.entry(path)
        folder, _, name = path.rpartition("/")
        return found is not None and found.md5 == folder[-2:] + name.removesuffix(".dir")

    def _each_object(self, entry: Entry, test: Callable[[str], bool]) -> bool:
        if not test(f"{self.cache}/{dvcfile.object_path(entry.md5)}"):
            return False
        if entry.is_folder and entry.md5 in self.hashes.trees:
            # A folder that was just hashed lists what its object in the cache lists: both have this md5.
            self._trees[entry.md5] = self.hashes.trees[entry.md5]
        files = self.tree(entry.md5) if entry.is_folder else {}
        return files is not None and all(test(f"{self.cache}/{dvcfile.object_path(md5)}") for md5 in set(files.values()))

    def damaged(self, entry: Entry) -> list[Path]:
        """The objects of this content that are not what their names say."""
        files = (self.tree(entry.md5) or {}) if entry.is_folder else {}
        paths = [self.cache / dvcfile.object_path(md5) for md5 in (entry.md5, *files.values())]
        return [path for path in dict.fromkeys(paths) if path.exists() and not self._intact(str(path))]

    def tree(self, md5: str) -> Mapping[str, str] | None:
        """The listing of a folder, by path inside it, None where the cache does not hold it."""
        if md5 not in self._trees and (data := self.obtain(md5)) is not None:
            self._trees[md5] = dvcfile.parse_tree(data)
        return self._trees.get(md5)

    def read(self, md5: str) -> bytes | None:
        """A file's content from the cache."""
        return _content(f"{self.cache}/{dvcfile.object_path(md5)}")

    def metrics(self, path: str) -> Mapping[str, Any]:
        """A metrics file of the workspace, empty where there is none."""
        data = _content(f"{self.root}/{path}")
        if data is None:
            return {}
        try:
            content = json.loads(data)
        except ValueError:
            return {}  # an edited metrics file is reported as a changed output; its numbers are of no use here
        return content if isinstance(content, dict) else {}

    def ran(self, step: Step) -> RunRecord | None:
        """The record of the run that made what lies in the workspace: beside it, or in the cache where DVC has restored it."""
        made = self.entry(step.provenance)
        if made is None:
            return None
        beside = records.from_json(self.metrics(step.run_record))
        return beside if beside and beside.statement == made.md5 else self.run_record(step.name, made.md5)

    def run_record(self, step: str, statement: str) -> RunRecord | None:
        """The record of the run that made a statement (its md5), as the cache has it."""
        if found := records.merged(records.kept(self.cache, step, statement)):
            return found
        data = self.read(statement)
        return records.of_old_statement(json.loads(data), statement) if data and records.is_old(data) else None


def _run_in(path: Path) -> Record | None:
    """The run in an entry of the run cache; None for the half of one that a killed DVC left behind."""
    try:
        return dvcfile.parse_record(path.read_bytes())
    except ValueError:
        return None


def _content(path: str) -> bytes | None:
    """The bytes of a file, None where there is none."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - plain strings: this runs for every step
            return file.read()
    except FileNotFoundError:
        return None
