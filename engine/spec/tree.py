"""A TOML document as a tree with the location of each key and value; reads documents and merges them."""

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

_MODEL_KEYS = ("architecture", "path", "id", "gguf", "experiment")
"""The keys that distinguish the ways to specify a model, in the order in which `engine.spec.models` checks them."""
_ADAPTER = ("model", "adapter")
"""A folder or a table: a commit must not go over to another id."""


@dataclass(frozen=True)
class Node:
    """A value of a document (a table, an array or a scalar), with the locations of its key and of the value."""

    content: Any
    key: Location
    value: Location

    def plain(self) -> Any:
        """The value without locations; do not modify it. Arrays become tuples, which strict models require."""
        return self._plain

    @cached_property
    def _plain(self) -> Any:
        # Cached, since hundreds of specs may share the nodes of one part.
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
        """The node at PATH, or its deepest existing ancestor."""
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


def read(path: Path, name: str, extended_at: Location | None = None) -> Node:
    """The document at PATH, called NAME in messages; EXTENDED_AT is the entry of `extends` that names it.

    Raises UserError if it cannot be read, is not valid TOML or contains a value that is not allowed in a spec.
    """
    return parse(_text(path, name, extended_at), name)


def parse(text: str, name: str) -> Node:
    """The document in TEXT, called NAME in messages; raises UserError if it is not valid TOML or has a value not allowed in a spec."""
    try:
        data = tomllib.loads(text)
        tree = _Builder(name, text).node((), data)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(error, name, text) from None
    except RecursionError:
        raise UserError("the tables or arrays are nested too deeply", Location(name)) from None
    except ValueError:  # Python refuses to read an integer of more than 4300 digits
        raise UserError("an integer has too many digits", Location(name), "integers in TOML have 64 bits") from None
    if problems := [problem for _, node in tree.walk() if (problem := _unfit(node))]:
        raise UserError(problems)
    return tree


def _text(path: Path, name: str, extended_at: Location | None) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}", extended_at or Location(name)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the file is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            _byte_location(data, error.start, name),
            "save the file as UTF-8",
        ) from None


def _byte_location(data: bytes, offset: int, name: str) -> Location:
    start = data.rfind(b"\n", 0, offset) + 1
    line = data[start:].split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")
    column = len(data[start:offset].decode("utf-8", "replace")) + 1
    return Location(name, data.count(b"\n", 0, offset) + 1, column, line)


def _syntax_error(error: tomllib.TOMLDecodeError, name: str, text: str) -> UserError:
    """tomllib's message, with its position as a location."""
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
    ("overwrite|twice|Duplicate|immutable", "a key or table is defined twice: remove one of them"),
    ("Invalid value", "strings need quotes; booleans are true and false"),
)
"""Hints for messages of tomllib, by pattern."""


def _unfit(node: Node) -> Problem | None:
    """The problem with a value that is not allowed in a spec; None if it is allowed."""
    if isinstance(node.content, datetime.date | datetime.time):
        return Problem("dates and times are not allowed in a spec", node.value, "write a string, in quotes")
    if isinstance(node.content, float) and not math.isfinite(node.content):
        return Problem("inf and nan are not allowed in a spec", node.value, "write a finite number, or remove the key")
    return None


class _Builder:
    """Builds the nodes of one text, with locations."""

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
        """The location of SPAN; of a span over several lines, only the first line is underlined."""
        source = self.lines[span.line - 1]
        return Location(self.name, span.line, span.column, source, max(1, min(span.length, len(source) - span.column + 1)))


def override(old: Node, new: Node, path: Key = ()) -> Node:
    """OLD overridden by NEW: tables merge, everything else is replaced; so are tables of another `kind` and another model."""
    if not isinstance(new.content, dict) or path == _ADAPTER:
        return new
    if isinstance(old.content, str) and "kind" not in new.content and len(path) > 1:
        # a family member given by name alone, to which NEW adds keys; a section is never one
        old = replace(old, content={"kind": old})
    if not isinstance(old.content, dict) or _another(old.content, new.content, path):
        return new
    merged = dict(old.content)
    for key, node in new.content.items():
        merged[key] = override(merged[key], node, (*path, key)) if key in merged else node
    return replace(new, content=merged)


def _another(old: dict[str, Node], new: dict[str, Node], path: Key) -> bool:
    """Whether NEW names a different family member or a different model than OLD."""
    if path == ("model",):
        before, after = (next((key for key in _MODEL_KEYS if key in table), None) for table in (old, new))
        if before and after and (before != after or (after != "architecture" and _differ(old[after], new[after]))):
            return True
    return "kind" in old and "kind" in new and _differ(old["kind"], new["kind"])


def _differ(old: Node, new: Node) -> bool:
    return isinstance(old.content, str) and isinstance(new.content, str) and old.content != new.content
