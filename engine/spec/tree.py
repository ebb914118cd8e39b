"""A TOML document as a tree that knows where each key and value stands, how it is read, and how one overrides another."""

import datetime
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.core.errors import Location, Problem, UserError
from engine.spec.positions import Key, Span, positions

_MODEL_KEYS = ("architecture", "path", "id", "experiment")
"""The keys that tell one sort of model from another, in the order in which the spec's sections ask for them."""


@dataclass(frozen=True)
class Node:
    """A value of a document: a table, an array or a single value, with the places of its key and of itself."""

    content: Any
    key: Location
    value: Location

    def plain(self) -> Any:
        """The value without places, not to be changed; arrays become tuples, as strict models want them."""
        return self._plain

    @cached_property
    def _plain(self) -> Any:
        # Kept, since hundreds of specs may share the nodes of one part.
        if isinstance(self.content, dict):
            return {key: node.plain() for key, node in self.content.items()}
        return tuple(node.plain() for node in self.content) if isinstance(self.content, tuple) else self.content

    def child(self, key: str | int) -> "Node | None":
        if isinstance(self.content, dict):
            return self.content.get(key)
        if isinstance(self.content, tuple) and isinstance(key, int) and key < len(self.content):
            node: Node = self.content[key]
            return node
        return None

    def nearest(self, path: Key) -> "Node":
        """The node at PATH, or the deepest one on the way to it."""
        child = self.child(path[0]) if path else None
        return child.nearest(path[1:]) if child else self

    def walk(self, path: Key = ()) -> Iterator[tuple[Key, "Node"]]:
        """Every node below this one with its path, in the order of the document."""
        items = (
            self.content.items() if isinstance(self.content, dict) else enumerate(self.content) if isinstance(self.content, tuple) else ()
        )
        for key, node in items:
            yield (*path, key), node
            yield from node.walk((*path, key))


def read(path: Path, name: str, asked_at: Location | None = None) -> Node:
    """The document at PATH, called NAME in messages; raises UserError where it is no TOML or holds what a spec cannot hold."""
    text = _text(path, name, asked_at)
    try:
        data = tomllib.loads(text)
        tree = _Builder(name, text).node((), data)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(error, name, text) from None
    except RecursionError:
        raise UserError("the tables or arrays are nested too deeply", Location(name)) from None
    except ValueError:  # Python refuses to read an integer of more than 4300 digits
        raise UserError("a number has too many digits", Location(name), "TOML's integers have 64 bits") from None
    if problems := [problem for _, node in tree.walk() if (problem := _unfit(node))]:
        raise UserError(problems)
    return tree


def _text(path: Path, name: str, asked_at: Location | None) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}", asked_at or Location(name)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the file is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            _byte_location(data, error.start, name),
            "save the file in the encoding UTF-8",
        ) from None


def _byte_location(data: bytes, offset: int, name: str) -> Location:
    start = data.rfind(b"\n", 0, offset) + 1
    line = data[start:].split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")
    column = len(data[start:offset].decode("utf-8", "replace")) + 1
    return Location(name, data.count(b"\n", 0, offset) + 1, column, line)


def _syntax_error(error: tomllib.TOMLDecodeError, name: str, text: str) -> UserError:
    """What tomllib says, with the place that it names as a caret."""
    what = re.sub(r" \(at [^()]*\)$", "", str(error))
    lines = text.replace("\r\n", "\n").split("\n")
    found = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
    if found:
        line, column = int(found[1]), int(found[2])
    else:  # at end of document
        line = max((number for number, content in enumerate(lines, 1) if content.strip()), default=1)
        column = len(lines[line - 1]) + 1
    hint = next((hint for pattern, hint in _SYNTAX_HINTS if re.search(pattern, what)), None)
    return UserError(f"not valid TOML: {what}", Location(name, line, column, lines[line - 1]), hint)


_SYNTAX_HINTS = (
    ("overwrite|twice|Duplicate|immutable", "the same key or table stands twice: keep one of them"),
    ("Invalid value", "strings need quotes; truth values are true and false"),
)
"""What may be done about what tomllib says, where its words alone do not tell."""


def _unfit(node: Node) -> Problem | None:
    """Why a spec cannot hold this value, if so."""
    if isinstance(node.content, datetime.date | datetime.time):
        return Problem("a spec holds no dates or times", node.value, "write it as a string, in quotes")
    if isinstance(node.content, float) and not math.isfinite(node.content):
        return Problem("a spec holds finite numbers only", node.value, "write a number, or leave the key out")
    return None


class _Builder:
    """Puts the places of one text to its values."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.lines = text.replace("\r\n", "\n").split("\n")
        self.positions = positions(text)

    def node(self, path: Key, value: Any) -> Node:
        position = self.positions.get(path)
        key, place = (self.location(position.key), self.location(position.value)) if position else (Location(self.name),) * 2
        if isinstance(value, dict):
            content: Any = {name: self.node((*path, name), item) for name, item in value.items()}
        elif isinstance(value, list):
            content = tuple(self.node((*path, index), item) for index, item in enumerate(value))
        else:
            content = value
        return Node(content, key, place)

    def location(self, span: Span) -> Location:
        """The place for people: the first line of what spans several."""
        source = self.lines[span.line - 1]
        return Location(self.name, span.line, span.column, source, max(1, min(span.length, len(source) - span.column + 1)))


def override(old: Node, new: Node, path: Key = ()) -> Node:
    """OLD with what NEW says: tables merge, everything else replaces; of another kind or another model nothing of the old stays."""
    if not isinstance(new.content, dict):
        return new
    if isinstance(old.content, str) and "kind" not in new.content and len(path) > 1:
        # a member of a family written by its name alone, now given keys; a section is never one
        old = replace(old, content={"kind": old})
    if not isinstance(old.content, dict) or _another(old.content, new.content, path):
        return new
    merged = dict(old.content)
    for key, node in new.content.items():
        merged[key] = override(merged[key], node, (*path, key)) if key in merged else node
    return replace(new, content=merged)


def _another(old: dict[str, Node], new: dict[str, Node], path: Key) -> bool:
    """Whether NEW names another member of a family, or another model, than OLD."""
    if path == ("model",):
        before, after = (next((key for key in _MODEL_KEYS if key in table), None) for table in (old, new))
        if before and after and (before != after or (after != "architecture" and _differ(old[after], new[after]))):
            return True
    return "kind" in old and "kind" in new and _differ(old["kind"], new["kind"])


def _differ(old: Node, new: Node) -> bool:
    return isinstance(old.content, str) and isinstance(new.content, str) and old.content != new.content
