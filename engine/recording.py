"""Records finished steps as `dvc repro` does, and restores earlier ones: the cache, the run cache, and `dvc.lock`."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engine import dvcfile, memo
from engine.dvcconfig import cache_folder
from engine.dvcfile import Entry, Record
from engine.errors import UserError
from engine.graph import Step
from engine.hashing import Hashes
from engine.locks import dvc_lock


@dataclass
class Recorder:
    """Writes the records of one workspace; whoever uses it holds the workspace's build lock."""

    root: Path
    hashes: Hashes
    _unwritten: dict[str, Record] = field(default_factory=dict)
    _lock: dvcfile.LockText | None = None
    """What `dvc.lock` says since this was last here."""
    _written: list[int] | None = None
    """The stamp of `dvc.lock` as this left it; another one means that somebody else has written it since."""

    @cached_property
    def cache(self) -> Path:
        """The folder of DVC's cache."""
        return cache_folder(self.root)

    def finish(self, step: Step, read: Mapping[str, Entry]) -> Record:
        """Put the outputs of a step that has just run into the cache, and the run into the run cache; READ is what it read."""
        record = Record(dvcfile.command(step), dict(read), {path: self.keep(path) for path in step.outputs})
        self._write_run(record)
        self._unwritten[step.name] = record
        return record

    def renew(self, step: Step, record: Record, read: Mapping[str, Entry]) -> None:
        """Record what RECORD says as read from READ; its outputs are as they were."""
        renewed = Record(record.command, dict(read), record.outputs)
        self._write_run(renewed)
        self._unwritten[step.name] = renewed

    def restore(self, step: Step, run: Record, read: Mapping[str, Entry]) -> Record:
        """Put the outputs of an earlier RUN back into the workspace."""
        for path, entry in run.outputs.items():
            self._check_out(path, entry)
        record = Record(dvcfile.command(step), dict(read), run.outputs)
        self._unwritten[step.name] = record
        return record

    def note(self, name: str, record: Record) -> None:
        """Remember a record that is written with the next `flush`."""
        self._unwritten[name] = record

    def flush(self) -> None:
        """Write all new records into `dvc.lock` at once, under DVC's own lock."""
        if not self._unwritten:
            return
        path = self.root / dvcfile.LOCK
        with dvc_lock(self.root):
            if self._lock is None or self._written != memo.stamp_of(path):
                self._lock = dvcfile.LockText(path.read_bytes() if path.exists() else None)
            self._lock.update(self._unwritten)
            replace_with(path, self._lock.text())
            self._written = memo.stamp_of(path)
        self._unwritten.clear()

    def keep(self, path: str) -> Entry:
        """Copy a file, or every file of a folder, into the cache, and give its content."""
        entry = self.hashes.entry(path)
        assert entry, f"{path} is not there"
        if not entry.is_folder:
            self._keep(self.root / path, entry.md5)
            return entry
        listing = self.hashes.listing(path)
        for name, md5 in listing.items():
            self._keep(self.root / path / name, md5)
        target = self.cache / dvcfile.object_path(entry.md5)
        if not target.exists():
            replace_with(target, dvcfile.tree_bytes(listing), dvcfile.OBJECT_MODE)
        return entry

    def _keep(self, file: Path, md5: str) -> None:
        """Copy FILE into the cache; the object gets its name only when it is whole and what its name says."""
        target = self.cache / dvcfile.object_path(md5)
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(file, temporary)
        if file_md5(temporary) != md5:
            temporary.unlink()
            raise UserError(f"{file} changed while it was being recorded", hint="run the same command again")
        temporary.chmod(dvcfile.OBJECT_MODE)
        temporary.replace(target)

    def _write_run(self, record: Record) -> None:
        folder = self.cache / dvcfile.run_folder(dvcfile.run_key(record.command, record.dependencies, record.outputs))
        path = folder / dvcfile.run_value(record)
        if not path.exists():
            replace_with(path, dvcfile.run_text(record).encode())

    def _check_out(self, path: str, entry: Entry) -> None:
        """Make PATH hold ENTRY: written aside from the cache, checked, and renamed."""
        target = self.root / path
        temporary = target.with_name(f".{target.name}.restored")
        remove(temporary)
        if entry.is_folder:
            data = (self.cache / dvcfile.object_path(entry.md5)).read_bytes()
            temporary.mkdir(parents=True)
            for name, md5 in dvcfile.parse_tree(data).items():
                self._copy_out(md5, temporary / name)
        else:
            self._copy_out(entry.md5, temporary)
        remove(target)
        temporary.replace(target)

    def _copy_out(self, md5: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.cache / dvcfile.object_path(md5), target)


def replace_with(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a whole file at once; a full disk leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_md5(path: Path) -> str:
    """The md5 of a file, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
