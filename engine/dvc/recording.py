"""Records finished steps as `dvc repro` does (cache, run cache and `dvc.lock`), and restores the outputs of earlier runs."""

import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engine.core import memo
from engine.core.errors import UserError
from engine.core.graph import Step
from engine.dvc import dvcfile, run_records
from engine.dvc.config import cache_settings, remote_folder
from engine.dvc.dvcfile import Entry, Record
from engine.dvc.hashing import Hashes
from engine.dvc.locks import dvc_lock
from engine.dvc.writing import Cache, aside, copy, file_md5, is_link, make_folder, place, remove, replace_with
from engine.identity.provenance import beside_in


@dataclass
class Recorder:
    """Writes the records of one workspace; the caller must hold the workspace's build lock."""

    root: Path
    hashes: Hashes
    _unwritten: dict[str, Record] = field(default_factory=dict)
    _lock: dvcfile.LockText | None = None
    """The content of `dvc.lock` as of the last `flush`."""
    _written: list[int] | None = None
    """The stamp of `dvc.lock` after the last `flush`; a different one means that another process has written it since."""

    @cached_property
    def settings(self) -> Cache:
        """The location of DVC's cache, and how its files are written."""
        return cache_settings(self.root)

    @property
    def cache(self) -> Path:
        """The folder of DVC's cache."""
        return self.settings.folder

    def finish(self, step: Step, read: Mapping[str, Entry]) -> Record:
        """Add the outputs of a step that has just run to the cache, and the run to the run cache; READ: its dependencies by path."""
        tracked = (step.metrics, step.plots)
        record = Record(dvcfile.command(step), dict(read), {path: self.keep(path, link=path not in tracked) for path in step.outputs})
        self.write_run(record)
        self._unwritten[step.name] = record
        return record

    def keep_run(self, command: str, read: Mapping[str, Entry], outputs: Iterable[str], tracked: Collection[str]) -> None:
        """Add a run that `dvc repro` has started to the run cache; READ: its dependencies by path, TRACKED: the outputs that git tracks.

        DVC (3.67, `Stage.run`) adds no run of a stage with an uncached output that is neither metric nor plot, but restores such a run.
        The other outputs come into the cache as soon as the stage's command has ended.
        """
        entries = {path: self.keep(path, link=False) if path in tracked else self.hashes.entry(path) for path in outputs}
        self.write_run(Record(command, dict(read), {path: entry for path, entry in entries.items() if entry}))

    def untie(self, steps: Iterable[Step]) -> None:
        """Make files of their own of metrics and plots of STEPS that DVC has restored as links into the cache, or as files to be read only.

        git tracks them: it would commit a symbolic link."""
        copied = self.settings.links[0] not in ("hardlink", "symlink")
        for file in (self.root / path for step in steps for path in (step.metrics, step.plots) if path):
            if not file.exists():
                continue
            if file.is_symlink() or (found := file.stat()).st_nlink > 1 or not found.st_mode & stat.S_IWUSR:
                replace_with(file, file.read_bytes())
            if copied and stat.S_IMODE(file.stat().st_mode) != self.settings.file_mode:
                self._open_to_group(file)

    def restore(self, step: Step, run: Record, read: Mapping[str, Entry]) -> Record:
        """Check out the outputs of an earlier RUN into the workspace, with the record of that run."""
        tracked = (step.metrics, step.plots)
        self._bring(step, run)
        for path, entry in run.outputs.items():
            # As in DVC: files that git tracks are never links into the cache.
            self.check_out(path, entry, ("copy",) if path in tracked else self.settings.links)
            # As in DVC: if outputs are links, files that git tracks keep the user's default permissions.
            if not entry.is_folder and not (path in tracked and self.settings.links[0] in ("hardlink", "symlink")):
                self._open_to_group(self.root / path)
        found = run_records.merged(run_records.kept(self.cache, step.name, run.outputs[step.provenance].md5))
        if found:
            replace_with(self.root / step.run_record, found.text().encode())
        else:
            remove(self.root / step.run_record)
        record = Record(dvcfile.command(step), dict(read), run.outputs)
        self.write_run(record)
        self._unwritten[step.name] = record
        return record

    def _open_to_group(self, file: Path) -> None:
        """With `cache.shared`, give an output that is a single file the group's permissions, as DVC does; not for links into the cache."""
        if self.settings.shared and not file.is_symlink() and file.stat().st_nlink == 1:
            file.chmod(self.settings.file_mode)

    def _bring(self, step: Step, run: Record) -> None:
        """Complete the outputs of RUN in the cache.

        Sources: DVC's remote if it is a folder; for metrics and plot, which DVC does not push, the workspace or the statement."""
        for entry in run.outputs.values():
            if self._fetch(entry.md5) and entry.is_folder:
                listing = dvcfile.parse_tree((self.cache / dvcfile.object_path(entry.md5)).read_bytes())
                for md5 in listing.values():
                    self._fetch(md5)
        data: bytes | None = None
        for path in (step.metrics, step.plots):
            md5 = run.outputs[path].md5 if path else ""
            if path is None or self._holds(md5):
                continue
            target = self.cache / dvcfile.object_path(md5)
            if (found := self.hashes.entry(path)) and found.md5 == md5:
                target.unlink(missing_ok=True)
                self.keep_file(self.root / path, md5)
                continue
            data = data or (self.cache / dvcfile.object_path(run.outputs[step.provenance].md5)).read_bytes()
            make_folder(target.parent, self.settings)
            replace_with(target, beside_in(data)[path], dvcfile.OBJECT_MODE)

    def _fetch(self, md5: str) -> bool:
        """Copy an object from DVC's remote, if it is a folder, unless the cache has it intact; returns whether the cache has it now."""
        if self._holds(md5):
            return True
        source = self._remote / dvcfile.object_path(md5) if self._remote else None
        if source is None or not source.exists():
            return False
        (self.cache / dvcfile.object_path(md5)).unlink(missing_ok=True)
        self.keep_file(source, md5.removesuffix(".dir"), name=md5)
        return True

    @cached_property
    def _remote(self) -> Path | None:
        return remote_folder(self.root)

    def _holds(self, md5: str) -> bool:
        target = self.cache / dvcfile.object_path(md5)
        return target.exists() and file_md5(target) == md5.removesuffix(".dir")

    def note(self, name: str, record: Record) -> None:
        """Queue a record for the next `flush`."""
        self._unwritten[name] = record

    def flush(self) -> None:
        """Write all queued records to `dvc.lock` at once, holding DVC's lock."""
        path = self.root / dvcfile.LOCK
        if not self._unwritten and (self._written == memo.stamp_of(path) or not path.exists() or dvcfile.is_tidy(path.read_bytes())):
            return
        with dvc_lock(self.root):
            if self._lock is None or self._written != memo.stamp_of(path):
                self._lock = dvcfile.LockText(path.read_bytes() if path.exists() else None)
            self._lock.update(self._unwritten)
            replace_with(path, self._lock.text())
            self._written = memo.stamp_of(path)
        self._unwritten.clear()

    def keep(self, path: str, link: bool = True) -> Entry:
        """Add a file or folder to the cache and return its content; LINK: replace it in the workspace by links, if `cache.type` says so."""
        entry = self.hashes.entry(path)
        assert entry, f"{path} does not exist"
        if not entry.is_folder:
            self.keep_file(self.root / path, entry.md5, link)
            self._open_to_group(self.root / path)
            return entry
        listing = self.hashes.listing(path)
        for name, md5 in listing.items():
            self.keep_file(self.root / path / name, md5, link)
        target = self.cache / dvcfile.object_path(entry.md5)
        if not target.exists():
            make_folder(target.parent, self.settings)
            replace_with(target, dvcfile.tree_bytes(listing), dvcfile.OBJECT_MODE)
        return entry

    def keep_file(self, file: Path, md5: str, link: bool = False, name: str = "") -> None:
        """Copy FILE into the cache atomically; the object gets its name only once it is complete and its hash is verified.

        Raises UserError if the content is not MD5: the file changed meanwhile.
        """
        target = self.cache / dvcfile.object_path(name or md5)
        if not target.exists():
            make_folder(target.parent, self.settings)
            temporary = aside(target)
            try:
                copy(file, temporary)
                if file_md5(temporary) != md5:
                    raise UserError(f"{file} changed while it was being recorded", hint="run the same command again")
                temporary.chmod(dvcfile.OBJECT_MODE)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        if link and self.settings.links[0] in ("hardlink", "symlink") and not is_link(file, target):
            # Store the result on disk only once: the file in the workspace becomes a link to the object.
            link_aside = aside(file)
            place(target, link_aside, self.settings.links)
            link_aside.replace(file)

    def write_run(self, record: Record) -> None:
        """Add RECORD to the run cache."""
        path = self.cache / dvcfile.run_path(record)
        make_folder(path.parent, self.settings)
        if path.exists():
            # DVC reads only the newest entry: make it the one whose outputs are in the workspace.
            os.utime(path)
        else:
            replace_with(path, dvcfile.run_text(record).encode(), self.settings.file_mode)

    def check_out(self, path: str, entry: Entry, links: Sequence[str]) -> None:
        """Replace PATH by ENTRY from the cache: written to a temporary path, then renamed."""
        target = self.root / path
        temporary = target.with_name(f".{target.name}.restored")
        remove(temporary)
        if entry.is_folder:
            data = (self.cache / dvcfile.object_path(entry.md5)).read_bytes()
            temporary.mkdir(parents=True)
            for name, md5 in dvcfile.parse_tree(data).items():
                self._place(md5, temporary / name, links)
        else:
            self._place(entry.md5, temporary, links)
        remove(target)
        temporary.replace(target)

    def _place(self, md5: str, target: Path, links: Sequence[str]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        place(self.cache / dvcfile.object_path(md5), target, links)
