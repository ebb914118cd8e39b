"""YAML and JSON files as trees with the location of each key and value; what the loaders of other tools pass over in silence is said."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.core.errors import Location, Problem, UserError
from engine.spec.tree import Node

_MERGE = "tag:yaml.org,2002:merge"
_VARIABLE = re.compile(r"\$\{[^}]*\}|^\$[A-Za-z_]\w*$")


@dataclass(frozen=True)
class Document:
    """One file of another tool."""

    path: Path
    name: str
    """The file in messages."""
    root: Node
    """Its mapping; sequences are tuples."""
    notes: tuple[Problem, ...]
    """Warnings: values that anchors bring from another line."""


def read(path: Path, name: str) -> Document:
    """The YAML or JSON file at PATH, called NAME in messages.

    Raises UserError if it cannot be read, is not valid, is not a mapping, or sets a key twice.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}", Location(name)) from None
    except UnicodeDecodeError as error:
        raise UserError(f"the file is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}", Location(name)) from None
    builder = _Builder(name, text)
    try:
        composed = yaml.compose(text, yaml.SafeLoader)
        root = builder.node(composed) if composed else Node({}, Location(name), Location(name))
    except yaml.YAMLError as error:
        if path.suffix != ".json":
            raise _syntax_error(error, builder) from None
        root = _json(text, name)  # JSON that is not YAML, such as with tabs: without the lines of its keys
    if builder.twice:
        raise UserError(builder.twice)
    if not isinstance(root.content, dict):
        raise UserError(
            f"{name} is not a mapping of keys to values", Location(name, 1), "a configuration has lines such as base_model: ..."
        )
    return Document(path, name, root, tuple(_aliases(text, builder)))


def variable_in(node: Node) -> str | None:
    """The first reference to a variable in the text of NODE, such as `${HOME}` or `$HOME`; None if there is none."""
    found = _VARIABLE.search(node.content) if isinstance(node.content, str) else None
    return found[0] if found else None


def _json(text: str, name: str) -> Node:
    try:
        data = json.loads(text)
    except ValueError as error:
        found = error if isinstance(error, json.JSONDecodeError) else None
        where = Location(name, found.lineno, found.colno) if found else Location(name)
        raise UserError(f"not valid JSON: {found.msg if found else error}", where) from None

    def node(value: Any) -> Node:
        if isinstance(value, dict):
            value = {key: node(item) for key, item in value.items()}
        return Node(tuple(map(node, value)) if isinstance(value, list) else value, Location(name), Location(name))

    return node(data)


def _syntax_error(error: yaml.YAMLError, builder: "_Builder") -> UserError:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error)
    where = builder.location(mark, mark) if mark else Location(builder.name)
    return UserError(f"not valid YAML: {what}", where, "indent with spaces; quote values that contain ': ' or ' #'")


class _Builder:
    """Builds located nodes out of PyYAML's, with the values that a safe loader gives."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.lines = text.replace("\r\n", "\n").split("\n")
        self.twice: list[Problem] = []
        self._maker = yaml.SafeLoader("")
        self._open: set[int] = set()

    def location(self, start: Any, end: Any) -> Location:
        """The place from START to END; of several lines, the first."""
        source = self.lines[start.line] if start.line < len(self.lines) else ""
        length = end.column - start.column if end.line == start.line else len(source.rstrip()) - start.column
        return Location(self.name, start.line + 1, start.column + 1, source, max(1, length))

    def node(self, found: Any, key: Location | None = None) -> Node:
        place = self.location(found.start_mark, found.end_mark)
        if id(found) in self._open:
            raise UserError("an anchor contains itself", place, "write the value out")
        self._open.add(id(found))
        content: Any
        if isinstance(found, yaml.MappingNode):
            content = self._mapping(found)
        elif isinstance(found, yaml.SequenceNode):
            content = tuple(self.node(item) for item in found.value)
        else:
            content = self._maker.construct_object(found)
        self._open.discard(id(found))
        return Node(content, key or place, place)

    def _mapping(self, found: Any) -> dict[str, Node]:
        """The keys of a mapping, each once; those that `<<` brings stand behind its own."""
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in found.value:
            place = self.location(key.start_mark, key.end_mark)
            if key.tag == _MERGE:
                for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = {**self._mapping(part), **merged}
                continue
            name = str(key.value)
            if name in own:
                what = f"'{name}' is set twice: here, and at line {own[name].key.line}"
                self.twice.append(Problem(what, place, "remove one of them: loaders take the last one in silence"))
            own[name] = self.node(value, place)
        return own | {name: node for name, node in merged.items() if name not in own}


def _aliases(text: str, builder: _Builder) -> Iterator[Problem]:
    """A note for each alias: the value that it stands for is written elsewhere."""
    anchors: dict[str, int] = {}
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            anchor = getattr(event, "anchor", None)
            if isinstance(event, yaml.AliasEvent):
                what = f"*{anchor} stands for the value at line {anchors.get(str(anchor), 0)}; the spec has the value itself"
                yield Problem(what, builder.location(event.start_mark, event.end_mark), None, "warning")
            elif anchor:
                anchors[anchor] = builder.location(event.start_mark, event.end_mark).line or 0
    except yaml.YAMLError:
        return
