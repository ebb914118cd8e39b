"""Every run that is recorded anywhere: in a `dvc.lock` of the working tree or of git's history, or in the run cache."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engine.core.graph import ARTIFACTS
from engine.dvc import dvcfile, git
from engine.dvc.config import cache_folder
from engine.dvc.dvcfile import Record


@dataclass(frozen=True)
class Run:
    """One entry of the run cache; a damaged one has no record (DVC would remove it, too)."""

    path: Path
    record: Record | None


@dataclass
class Area:
    """The parts of a workspace that `engine gc` scans; links that lead out of the workspace are not followed."""

    root: Path
    skipped: list[str] = field(default_factory=list)

    def children(self, folder: str) -> list[Path]:
        """The entries of a folder, sorted by name; none if it is missing or outside the workspace."""
        path = self.root / folder
        if not path.is_dir():
            return []
        if not path.resolve().is_relative_to(self.root):
            self.skipped.append(folder)
            return []
        return sorted(path.iterdir())

    def below(self, folder: str, levels: int) -> list[Path]:
        """The entries LEVELS folders below the children of FOLDER."""
        found = self.children(folder)
        return found if levels == 0 else [path for child in found for path in self.below(str(child.relative_to(self.root)), levels - 1)]

    @cached_property
    def cache(self) -> str:
        """DVC's cache folder, relative to the workspace if inside it; a cache outside may be shared with others."""
        folder = cache_folder(self.root)
        return str(folder.relative_to(self.root) if folder.is_relative_to(self.root) else folder)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every entry of the run cache."""
        return tuple(Run(path, _record(path)) for path in self.below(f"{self.cache}/runs", 2))

    @cached_property
    def objects(self) -> dict[Path, str]:
        """Every object file of the cache, and the md5 in its name."""
        return {path: path.parent.name + path.name for path in self.below(f"{self.cache}/files/md5", 1)}


def _record(path: Path) -> Record | None:
    try:
        return None if path.name.startswith(".") else dvcfile.parse_record(path.read_bytes())
    except ValueError:
        return None


def recorded(root: Path, naming: str) -> Iterator[Record]:
    """The records of every `dvc.lock`, of the working tree or a commit, that contains the text NAMING, and of the run cache."""
    for text in documents(root, history=True):
        if naming.encode() in text:
            try:
                yield from dvcfile.parse_lock(text).values()
            except ValueError:
                # A lock with conflict markers is ambiguous; the commits on both sides are not.
                continue
    yield from (run.record for run in Area(root).runs if run.record)


def documents(root: Path, history: bool) -> Iterator[bytes]:
    """The content of every `dvc.lock` and `*.dvc`: in the working tree, in DVC's temporary experiments, and in git."""
    for folder in (root, root / dvcfile.TEMPORARY / "exps"):
        for where, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".") and not (folder == root and name == ARTIFACTS)]
            paths = (Path(where, name) for name in files if name == dvcfile.LOCK or name.endswith(".dvc"))
            yield from (path.read_bytes() for path in paths if path.is_file())
    if git.has_repository(root):
        yield from (content for _, content in git.contents(root, git.dvc_files(root, history)))
