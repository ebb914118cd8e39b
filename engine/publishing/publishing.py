"""Publishes the result of a step: gathers its files, decides what is written, writes it, and notes the revision in a part of a spec."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.digests import short
from engine.core.errors import UserError
from engine.dvc.writing import replace_with
from engine.publishing.card import CARD, text
from engine.publishing.destinations import SUMS, Change, Destination, Hub, licence_of, parse_sums, sha256
from stages.generate.sources.hub import COMMIT

if TYPE_CHECKING:
    from engine.plan.project import Project
    from engine.publishing.source import Source

STATEMENT = "provenance.json"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Item:
    """A file that is published."""

    path: str
    file: Path
    change: Change

    @property
    def size(self) -> int:
        """In bytes."""
        return self.file.lstat().st_size


def is_repository(target: str) -> bool:
    """Whether TARGET names a repository of the hub, not a folder: two words with a slash, and no such folder here."""
    return bool(_REPOSITORY.fullmatch(target)) and not target.startswith(".") and not Path(target).exists()


def hub_base(named: str | None) -> tuple[str, str] | None:
    """Id and revision in `ID@COMMIT`; raises UserError if it has another form."""
    if named is None:
        return None
    name, _, revision = named.partition("@")
    if not _REPOSITORY.fullmatch(name) or not COMMIT.fullmatch(revision):
        raise UserError(f"--base must be USER/NAME@COMMIT with a full commit hash (40 hex digits), got '{named}'")
    return name, revision


def complete(project: "Project", source: "Source", target: str | None) -> dict[str, Path]:
    """Add card, statement and checksums to the folder of SOURCE; all its files, by path."""
    folder = source.folder
    (folder / CARD).write_text(text(project, source, target, dict(_licences(source))), "utf-8")
    (folder / STATEMENT).write_bytes(source.statement)
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()}
    sums = "".join(f"{sha256(file)}  {name}\n" for name, file in files.items() if not file.is_symlink())
    (folder / SUMS).write_text(sums, "utf-8")
    return {**files, SUMS: folder / SUMS}


def _licences(source: "Source") -> Iterator[tuple[tuple[str, str], str]]:
    """The licences that the hub states for the base and the data sets of SOURCE."""
    asked: list[tuple[str, Any, Any]] = [("model", *base)] if (base := source.hub_base) else []
    if source.spec:
        origins = [source.spec.experiment.tasks[task].source for task in source.spec.experiment.trained_tasks]
        asked += [("dataset", origin.id, origin.revision) for origin in origins if origin.kind == "hub"]
    for kind, name, revision in asked:
        if name and revision and (found := licence_of(kind, name, revision)):
            yield (kind, name), found


def plan(files: Mapping[str, Path], destination: Destination, replace: bool) -> list[Item]:
    """What is written of FILES; raises UserError where a file there is somebody else's, unless REPLACE.

    Ours are those in the checksums of an earlier publication, which have a statement among them.
    """
    sums = parse_sums(destination.sums())
    ours = {*sums, SUMS} if STATEMENT in sums else set()
    found, foreign = [], []
    for name, file in files.items():
        same = destination.same(name, file)
        if same is False and name not in ours:
            foreign.append(name)
        found.append(Item(name, file, "add" if same is None else "keep" if same else "replace"))
    if foreign and not replace:
        what = f"{destination.name} has {', '.join(foreign)} from somebody else, which would be replaced"
        raise UserError(what, hint="publish to another place, or replace what stands there: --replace")
    return found


def write(source: "Source", items: list[Item], destination: Destination) -> str | None:
    """Write what has changed; the revision that has it, if there are revisions. If nothing has changed, nothing is written."""
    changed = {item.path: item.file for item in items if item.change != "keep"}
    if not changed:
        return destination.head if isinstance(destination, Hub) else None
    return destination.write(changed, f"{source.step.name} {short(source.told.digest)}")


def write_back(project: "Project", source: "Source", repository: str, revision: str) -> Path | None:
    """Write the part of a spec with which `[model]` names what was published; None for what a spec cannot name."""
    config = source.adapter
    if config:
        base = f'id = "{config.get("base_model_name_or_path")}"\nrevision = "{config.get("revision")}"\n'
        model = f'{base}adapter = {{ id = "{repository}", revision = "{revision}" }}\n'
    elif source.is_model:
        model = f'id = "{repository}"\nrevision = "{revision}"\n'
    else:
        return None
    specs = (project.root / source.spec.path).parent if source.spec else project.root / "specs"
    path = specs / "parts" / "published" / f"{source.name}.toml"
    head = f"# Written by `engine publish`: {source.step.name}, content address {source.told.digest}.\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_with(path, f"{head}[model]\n{model}".encode())
    return path
