"""Moving names of revisions in specs, found in their text and replaced there: comments, order and spacing stay."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.core.errors import Location, Problem, UserError
from engine.spec.positions import Key, positions

COMMIT = re.compile(r"[0-9a-f]{40}")

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
    """Every moving revision of FILE, which messages call NAME; raises UserError where it is not TOML in UTF-8."""
    text = _text(file, name)
    places = positions(text)
    lines = text.replace("\r\n", "\n").split("\n")
    found = []
    for key, table in _tables(tomllib.loads(text), ()):
        revision, model = table.get("revision"), table.get("id")
        if not (isinstance(revision, str) and isinstance(model, str)) or COMMIT.fullmatch(revision):
            continue
        span = places[*key, "revision"].value
        where = Location(name, span.line, span.column, lines[span.line - 1], span.length)
        found.append(Moving(file, (*key, "revision"), where, "dataset" if table.get("kind") == "hub" else "model", model, revision))
    return tuple(found)


def pin(file: Path, name: str, commits: Mapping[Key, str]) -> str:
    """The text of FILE with the values at the keys of COMMITS replaced by these commits; all else is as it was, to the byte."""
    text = _text(file, name)
    places = positions(text)
    normal = text.replace("\r\n", "\n")
    starts = [0]
    for line in normal.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    spans = sorted(((places[key].value, commit) for key, commit in commits.items()), key=lambda item: (item[0].line, item[0].column))
    for span, commit in reversed(spans):
        start = starts[span.line - 1] + span.column - 1
        normal = f'{normal[:start]}"{commit}"{normal[start + span.length :]}'
    return normal.replace("\n", "\r\n") if "\r\n" in text else normal


def files_of(specs: list[Path]) -> tuple[Path, ...]:
    """SPECS and every part that they extend, each once, in order of reading; parts that are not there are left to `engine check`."""
    found: dict[Path, None] = {}

    def visit(file: Path) -> None:
        if file in found or not file.is_file():
            return
        found[file] = None
        try:
            entries = tomllib.loads(file.read_text("utf-8")).get("extends", [])
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


def _tables(value: Any, key: Key) -> Iterator[tuple[Key, dict[str, Any]]]:
    if isinstance(value, dict):
        yield key, value
        for name, item in value.items():
            yield from _tables(item, (*key, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _tables(item, (*key, number))


def _text(file: Path, name: str) -> str:
    try:
        text = file.read_bytes().decode("utf-8")
        tomllib.loads(text.replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8: {error}", Location(name), "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name} is not valid TOML: {error}", Location(name), "run: engine check") from None
    return text
