"""Drafts as TOML: one value a line, with the key that it comes from in a comment."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping

from engine.importing.reading import Setting
from engine.spec.notation import dotted, toml
from engine.spec.positions import Key

_SECTIONS = ("experiment", "model", "tasks", "tokenization", "mixture", "training", "evaluation", "benchmarks", "merge", "resources")
_WIDTH = 100
_UNIT = {"tasks": 2}
"""How many keys name a table that files may share; of others, one."""


def unit_of(path: Key) -> Key:
    """The table that PATH is in and that several specs may share: a section, or one task."""
    return path[: _UNIT.get(str(path[0]), 1)]


def spec_text(settings: Mapping[Key, Setting], header: Iterable[str], extends: Iterable[str] = ()) -> str:
    """The text of a TOML file with SETTINGS, below comments with the lines of HEADER."""
    lines = [f"# {line}".rstrip() for line in header]
    if parts := tuple(extends):
        lines += ["", f"extends = {toml(parts)}"]
    for table, inside in _tables(settings):
        lines += ["", f"[{dotted(table)}]"]
        rows = [(f"{dotted((path[-1],))} = {toml(_written(setting.value))}", setting) for path, setting in inside]
        width = max((len(row) for row, _ in rows if len(row) <= 60), default=0)
        for row, setting in rows:
            if setting.remark:
                lines += textwrap.wrap(setting.remark, _WIDTH, initial_indent="# ", subsequent_indent="# ")
            comment = ", ".join(setting.sources)
            lines.append(f"{row:<{width}}  # {comment}" if comment else row)
    return "\n".join(lines) + "\n"


def _tables(settings: Mapping[Key, Setting]) -> Iterator[tuple[Key, list[tuple[Key, Setting]]]]:
    """The tables of a file in the order of the reference, each with its settings in the order of their making; `kind` comes first."""
    tables: dict[Key, list[tuple[Key, Setting]]] = {}
    for path, setting in settings.items():
        tables.setdefault(path[:-1], []).append((path, setting))
    firsts = {unit: number for number, unit in enumerate(dict.fromkeys(table[:2] for table in tables))}
    order = sorted(tables, key=lambda t: (_SECTIONS.index(str(t[0])), firsts[t[:2]] if t[0] == "tasks" else 0, len(t) > 1, t[: len(t)]))
    for table in order:
        yield table, sorted(tables[table], key=lambda item: item[0][-1] != "kind")


def _written(value: object) -> object:
    """VALUE with tuples in place of lists, as the notation of values wants them."""
    if isinstance(value, list | tuple):
        return tuple(map(_written, value))
    return {key: _written(item) for key, item in value.items()} if isinstance(value, dict) else value
