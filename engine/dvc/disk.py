"""The store of a real workspace: its content, DVC's records and DVC's caches."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.core import memo
from engine.core.graph import Step
from engine.dvc import dvcfile, run_records
from engine.dvc.config import cache_folder, remote_folder
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.hashing import Hashes
from engine.dvc.ignore import Ignored
from engine.dvc.run_records import RunRecord


@dataclass
class Disk:
    """The store of a real workspace."""

    root: Path
    hashes: Hashes
    offered: dict[str, str] = field(default_factory=dict)
    """Artifacts, by md5, that DVC's remote was found to have, each with what is known of the run that made it."""
    _entries: dict[str, Entry | None] = field(default_factory=dict)
    _records: dict[str, Record] = field(default_factory=dict)
    """The recorded runs read so far, by step."""
    _trees: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """The listings of cached folders, by md5."""

    @cached_property
    def cache(self) -> Path:
        """The folder of DVC's cache."""
        return cache_folder(self.root)

    @cached_property
    def remote(self) -> Path | None:
        """DVC's default remote, if it is a folder."""
        return remote_folder(self.root)

    def entry(self, path: str) -> Entry | None:
        """The content of a path in the workspace; None if it does not exist or DVC ignores it."""
        if path not in self._entries:
            inside = self._inside(path)
            hidden = inside is not None and not self._ignored.reaches(inside)
            self._entries[path] = None if hidden else self.hashes.entry(path if inside is None else inside.rstrip("/"), self._counts)
        return self._entries[path]

    def fresh(self, path: str) -> Entry | None:
        """As `entry`, but read again instead of from memory."""
        self._entries.pop(path, None)
        return self.entry(path)

    def _inside(self, path: str) -> str | None:
        """PATH relative to the workspace, with a trailing `/` for a folder; None if it is outside."""
        if os.path.isabs(path) or ".." in path:  # noqa: PTH117
            path = os.path.relpath(os.path.abspath(self.root / path), os.path.abspath(self.root))  # noqa: PTH100
            if path == os.pardir or path.startswith(f"..{os.sep}"):
                return None
        path = os.path.normpath(path)
        return f"{path}/" if os.path.isdir(f"{self._top}{path}") else path  # noqa: PTH112

    @cached_property
    def _top(self) -> str:
        """The workspace's folder with a `/`, as a plain string: it begins the path of every file."""
        return os.path.join(self.hashes.root, "")  # noqa: PTH118

    @cached_property
    def _ignored(self) -> Ignored:
        return Ignored(self.root)

    def _counts(self, full: str) -> bool:
        """Whether DVC includes a path inside a folder that it includes; outside the workspace it includes everything."""
        top = self._top
        return not full.startswith(top) or full.startswith(f"{top}../") or self._ignored.counts(full[len(top) :])

    @cached_property
    def _packed_records(self) -> Mapping[str, list[Any]]:
        """All recorded runs, packed; YAML is slow, so the content of `dvc.lock` is cached as JSON next to the hashes."""
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
            raise dvcfile.unreadable(error) from None

    def record(self, step: str) -> Record | None:
        """The last recorded run of a step in `dvc.lock`."""
        if step not in self._records and step in self._packed_records:
            self._records[step] = dvcfile.unpacked(self._packed_records[step])
        return self._records.get(step)

    def runs(self, key: str) -> Iterator[Record | None]:
        """All runs in the run cache for a key, newest first; None for an unreadable entry."""
        folder = self.cache / dvcfile.run_folder(key)
        entries = list(folder.iterdir()) if folder.is_dir() else []
        for path in sorted(entries, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            yield _run_in(path)

    @cached_property
    def _runs_naming(self) -> Mapping[str, list[Path]]:
        """The entries of the run cache by the md5s in their text; parsing a thousand of them would take seconds."""
        found: dict[str, list[Path]] = defaultdict(list)
        for path in (self.cache / "runs").glob("*/*/*"):
            for md5 in dvcfile.md5s_in(path.read_bytes()):
                found[md5].append(path)
        return found

    def runs_with(self, path: str, md5: str) -> bool:
        """Whether the run cache has any run that read this content at this path."""
        runs = (_run_in(file) for file in self._runs_naming.get(md5.removesuffix(".dir"), ()))
        return any(run and (entry := run.dependencies.get(path)) and entry.md5 == md5 for run in runs)

    def holds(self, entry: Entry) -> bool:
        """Whether the cache has this content, for a folder including all its files."""
        return self._each_object(entry, os.path.exists)

    def holds_intact(self, entry: Entry) -> bool:
        """As `holds`, and every object matches the hash in its name; DVC itself trusts any read-only object."""
        return self._each_object(entry, self._intact)

    def obtainable(self, entry: Entry) -> bool:
        """As `holds_intact`, but DVC's remote counts too if it is a folder."""
        if entry.md5 in self.offered or self.holds_intact(entry):
            return True
        if self.remote is None:
            return False
        data = self.obtain(entry.md5)
        try:
            files = dvcfile.parse_tree(data) if data and entry.is_folder else {}
        except ValueError:
            return False
        return data is not None and all(
            any(self._intact(f"{folder}/{dvcfile.object_path(md5)}") for folder in (self.cache, self.remote))
            for md5 in {entry.md5, *files.values()}
        )

    def obtain(self, md5: str) -> bytes | None:
        """As `read`, but also from DVC's remote if it is a folder."""
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
            # The listing of a folder hashed before has this md5, so it equals the object in the cache.
            self._trees[entry.md5] = self.hashes.trees[entry.md5]
        try:
            files = self.tree(entry.md5) if entry.is_folder else {}
        except ValueError:
            # Its md5 is right, but DVC has not written it.
            return False
        return files is not None and all(test(f"{self.cache}/{dvcfile.object_path(md5)}") for md5 in set(files.values()))

    def damaged(self, entry: Entry) -> list[Path]:
        """The objects of this content that do not match the hash in their names."""
        files = (self.tree(entry.md5) or {}) if entry.is_folder else {}
        paths = [self.cache / dvcfile.object_path(md5) for md5 in (entry.md5, *files.values())]
        return [path for path in dict.fromkeys(paths) if path.exists() and not self._intact(str(path))]

    def tree(self, md5: str) -> Mapping[str, str] | None:
        """The listing of a folder (path inside it to md5); None if neither the cache nor a remote folder has it."""
        if md5 not in self._trees and (data := self.obtain(md5)) is not None:
            self._trees[md5] = dvcfile.parse_tree(data)
        return self._trees.get(md5)

    def read(self, md5: str) -> bytes | None:
        """The content of a file in the cache; None if it is missing."""
        return _content(f"{self.cache}/{dvcfile.object_path(md5)}")

    def metrics(self, path: str) -> Mapping[str, Any]:
        """The content of a metrics file in the workspace; empty if it is missing or invalid."""
        data = _content(f"{self.root}/{path}")
        if data is None:
            return {}
        try:
            content = json.loads(data)
        except ValueError:
            return {}  # an edited metrics file is reported as a changed output
        return content if isinstance(content, dict) else {}

    def ran(self, step: Step) -> RunRecord | None:
        """The record of the run that produced the step's outputs: from the workspace, or from the cache if DVC restored them."""
        made = self.entry(step.provenance)
        if made is None:
            return None
        beside = run_records.from_json(self.metrics(step.run_record))
        return beside if beside and beside.statement == made.md5 else self.run_record(step.name, made.md5)

    def run_record(self, step: str, statement: str) -> RunRecord | None:
        """The record of the run that produced a statement (given by md5), from the cache."""
        if found := run_records.merged(run_records.kept(self.cache, step, statement)):
            return found
        data = self.read(statement)
        return run_records.of_old_statement(json.loads(data), statement) if data and run_records.is_old(data) else None


def _run_in(path: Path) -> Record | None:
    """The run in an entry of the run cache; None for a partial entry of a killed DVC process."""
    try:
        return dvcfile.parse_record(path.read_bytes())
    except ValueError:
        return None


def _content(path: str) -> bytes | None:
    """The content of a file; None if it does not exist."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - plain strings: this runs for every step
            return file.read()
    except FileNotFoundError:
        return None
