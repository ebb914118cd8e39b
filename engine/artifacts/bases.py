"""The base of an adapter: which model it is, and where its files are now."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.artifacts.addresses import PROVENANCE, provenance_of
from engine.dvc import dvcfile
from engine.dvc.disk import Disk
from engine.dvc.dvcfile import Entry
from engine.dvc.recorded import recorded
from engine.dvc.remote import Remote, Unreadable
from engine.identity.provenance import Provenance


@dataclass(frozen=True)
class Read:
    """A folder that a training read: its path, relative to the workspace if inside it, else absolute, and its content."""

    path: str
    md5: str


@dataclass(frozen=True)
class Base:
    """The model that an adapter was trained on."""

    read: Read
    made: Provenance | None
    """The provenance of the base; None for a folder that no step made, and if the step's record is lost."""
    published: tuple[str, str] | None = None
    """Id and revision under which it was published, for a base that does not come from the hub."""

    @property
    def hub(self) -> tuple[str, str] | None:
        """Id and revision of a model of the hub; None for any other."""
        if self.published:
            return self.published
        return (self.made.recipe["id"], self.made.recipe["revision"]) if self.made and self.made.kind == "fetch" else None

    @property
    def name(self) -> str:
        """The name of the base; contains no path of this machine."""
        return self.hub[0] if self.hub else Path(self.read.path).name


def read_by(told: Provenance, role: str) -> Read | None:
    """The folder that a training read in ROLE; None if it has no such input."""
    found = told.inputs.get(role)
    return Read(found["path"], found["md5"]) if found else None


def base_of(root: Path, store: Disk, remote: Remote, told: Provenance) -> Base:
    """The model that the training TOLD started from; its provenance is pulled from the remote if the cache lacks it."""
    read = read_by(told, "model")
    assert read, "every training reads a model"
    for record in recorded(root, read.path):
        statement = record.outputs.get(read.path + PROVENANCE)
        if statement is None or record.outputs.get(read.path) != Entry(read.md5):
            continue
        if not store.holds(statement):
            _try_to_pull(remote, statement.md5)
        if made := provenance_of(record, store):
            return Base(read, made)
    return Base(read, None)


def files_of(root: Path, store: Disk, remote: Remote, read: Read) -> Mapping[str, Path] | None:
    """The files of a folder with the content that was read, by their paths inside it: from DVC's cache, its remote, or the original folder.

    None if none of them has all files any more."""
    entry = Entry(read.md5)
    if not entry.is_folder:
        return None
    if not store.holds_intact(entry):
        now = store.entry(read.path)
        if now and now.md5 == read.md5:
            folder = root / read.path
            return {name: folder / name for name in store.hashes.trees[read.md5]}
        _try_to_pull(remote, read.md5)
    listing = store.tree(read.md5) if store.holds_intact(entry) else None
    return None if listing is None else {name: store.cache / dvcfile.object_path(md5) for name, md5 in listing.items()}


def _try_to_pull(remote: Remote, md5: str) -> None:
    """Pull content into the cache if the remote has it; the caller checks what has arrived."""
    with contextlib.suppress(Unreadable):
        remote.pull([md5])
