"""Moving names of revisions in specs, found in their text and replaced there: comments, order and spacing stay."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.core.errors import Location, Problem, UserError
from engine.spec import tree
from engine.spec.positions import Key, positions
from stages.generate.sources.hub import COMMIT

BYTE_ORDER_MARK = "\ufeff"

Repository = Literal["model", "dataset"]


@dataclass(frozen=True)
class Moving:
    """One value `revision` that names a branch or tag, or a commit not in full."""

    file: Path
    key: Key
    where: Location
    repository: Repository
    id: str
    revision: str


def moving_in(file: Path, name: str) -> tuple[Moving, ...]:
    """Every moving revision of FILE, which messages call NAME; raises UserError if it cannot be read as a spec."""
    found = []
    for key, node in tree.read(file, name).walk():
        if not isinstance(node.content, dict) or not {"revision", "id"} <= node.content.keys():
            continue
        values = {field: value.content for field, value in node.content.items()}
        revision, model = values["revision"], values["id"]
        if not (isinstance(revision, str) and isinstance(model, str)) or COMMIT.fullmatch(revision):
            continue
        repository: Repository = "dataset" if values.get("kind") == "hub" else "model"
        found.append(Moving(file, (*key, "revision"), node.content["revision"].value, repository, model, revision))
    return tuple(found)


def pin(file: Path, commits: Mapping[Key, str]) -> str:
    """The text of FILE, which `moving_in` has read, with the values at the keys of COMMITS replaced; all else is as it was, to the byte."""
    whole = file.read_bytes().decode("utf-8")
    text = whole.removeprefix(BYTE_ORDER_MARK)
    places = positions(text)
    # Lines are those of `positions`, whatever ends them: a carriage return stands behind every column.
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    values = {key: places[key].value for key in commits}
    spans = [(starts[span.line - 1] + span.column - 1, span.length, commits[key]) for key, span in values.items()]
    for start, length, commit in sorted(spans, reverse=True):
        text = f'{text[:start]}"{commit}"{text[start + length :]}'
    return whole[: len(whole) - len(whole.removeprefix(BYTE_ORDER_MARK))] + text


def files_of(specs: list[Path]) -> tuple[Path, ...]:
    """SPECS and every part that they extend, each once, in order of reading; parts that are not there are left to `engine check`."""
    found: dict[Path, None] = {}

    def visit(file: Path) -> None:
        if file in found or not file.is_file():
            return
        found[file] = None
        try:
            entries = tomllib.loads(file.read_text("utf-8-sig")).get("extends", [])
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            return  # reported by whoever reads it for its revisions
        for entry in [entries] if isinstance(entries, str) else entries if isinstance(entries, list) else []:
            if isinstance(entry, str):
                visit((file.parent / entry).resolve())

    for spec in specs:
        visit(spec.resolve())
    return tuple(found)


def resolved(found: tuple[Moving, ...], commit_of: Callable[[Repository, str, str], str | None]) -> dict[Moving, str]:
    """The commit that each name stands for now; raises UserError that names all for which the hub gives none."""
    commits = {one: commit_of(one.repository, one.id, one.revision) for one in found}
    if missing := [one for one, commit in commits.items() if commit is None]:
        hint = "check id and revision, and the network; a gated or private repository needs HF_TOKEN"
        raise UserError([Problem(f"the hub gives no commit for {one.id} at {one.revision!r}", one.where, hint) for one in missing])
    return {one: commit for one, commit in commits.items() if commit}
