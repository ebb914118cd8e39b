"""Pydantic's errors in plain words, each at the key or value that it is about."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from engine.core.errors import Location, Problem, did_you_mean
from engine.core.part import Name, Part
from engine.spec.foreign import foreign_hint, key_of
from engine.spec.notation import described, dotted
from engine.spec.places import other_places
from engine.spec.positions import Key
from engine.spec.shapes import AnyOf, Array, Choice, Family, Map, Shape, Table
from engine.spec.tree import Node

_KNOWN_TYPES = set(get_args(ErrorType)) - {"value_error", "assertion_error"}
"""The errors that pydantic itself finds; the others are rules that a section states in its own words."""
_NAME_PATTERN = next(item.pattern for info in get_args(Name)[1:] for item in info.metadata if hasattr(item, "pattern"))
_NAME_RULE = "a name is made of lower-case letters and digits, with '-' or '_' between them"
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}


@dataclass(frozen=True)
class _Found:
    """An error of pydantic, brought back to the document: the path without tags, and what may stand there."""

    error: ErrorDetails
    path: Key
    """Where it is wrong; for a missing key, the key that should be there."""
    shape: Shape | None
    """What may stand at the path, where that is known."""
    table: Shape | None
    """What may stand in the table or array around it; of a family, the member that was chosen."""
    family: Family | None
    """The family of which the table around it is a member, if it is."""
    field: FieldInfo | None
    root: type[Part]
    """What the whole document is."""
    choice: Key | None
    """The path at which several sorts of value are allowed, if pydantic tried them one by one."""
    tree: Node

    @property
    def node(self) -> Node:
        return self.tree.nearest(self.path)

    @property
    def given(self) -> Any:
        return self.node.plain()

    @property
    def name(self) -> str:
        return dotted(self.path)

    @property
    def hint(self) -> str | None:
        return f"{self.path[-1]}: {self.field.description}" if self.field and self.field.description else None

    def problem(self, what: str, hint: str | None = None) -> Problem:
        """A problem with the value."""
        return Problem(what, self.node.value, hint)


def problems(errors: Iterable[ErrorDetails], tree: Node, part: type[Part]) -> list[tuple[Key, Problem]]:
    """A problem for each error with its path; errors of one value that may be of several sorts become one."""
    found = _one_per_choice([_locate(error, tree, part) for error in errors])
    return [(item.path, _explain(item)) for item in found]


def _locate(error: ErrorDetails, tree: Node, part: type[Part]) -> _Found:
    """Walk the shapes beside pydantic's path, which also names the members of families and the alternatives that were tried."""
    shape: Shape | None = Table(part)
    table: Shape | None = None
    chosen: Family | None = None
    family: Family | None = None
    field: FieldInfo | None = None
    path: Key = ()
    choice: Key | None = None
    every: Shape | None = None
    for key in (*error["loc"], *error.get("ctx", {}).get("at", ())):
        if isinstance(shape, Family):
            member = shape.members.get(str(key))
            chosen, shape = shape, Table(member) if member else None
        elif isinstance(shape, AnyOf):
            choice, every, shape = path, shape, _tried(shape, tree.nearest(path).plain())
        elif not (key == "[key]" and isinstance(table, Map) and error["type"] != "extra_forbidden"):
            table, family, field = shape, chosen, _field(shape, key)
            path, shape, chosen = (*path, key), _child(shape, key), None
    return _Found(error, path, every if path == choice else shape, table, family, field, part, choice, tree)


def _field(shape: Shape | None, key: object) -> FieldInfo | None:
    return shape.part.model_fields.get(str(key)) if isinstance(shape, Table) else None


def _child(shape: Shape | None, key: object) -> Shape | None:
    if isinstance(shape, Map):
        return shape.values
    return shape.child(key) if isinstance(shape, Table | Array) else None


def _tried(shape: AnyOf, value: object) -> Shape | None:
    """The alternative that fits the sort of the value, so that what is wrong inside it can be located."""
    sorts: dict[type, tuple[type, ...]] = {tuple: (Array,), dict: (Table, Map, Family)}
    return next((item for item in shape.alternatives if isinstance(item, sorts.get(type(value), ()))), None)


def _one_per_choice(found: list[_Found]) -> list[_Found]:
    """Of the alternatives that were tried for one value keep what is wrong inside it, else say once what may stand there."""
    kept: dict[object, _Found] = {}
    inside = {item.choice for item in found if item.choice is not None and len(item.path) > len(item.choice)}
    for number, item in enumerate(found):
        if item.choice is None or item.path != item.choice:
            kept[number] = item
        elif item.choice not in inside:
            kept.setdefault(item.choice, item)
    return list(kept.values())


def _explain(found: _Found) -> Problem:
    kind = found.error["type"]
    if explain := _EXPLAIN.get(kind):
        return explain(found)
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        limit = found.error["ctx"][key]
        return found.problem(f"{found.name} must be {words} {_number(limit)}, not {_number(found.given)}", found.hint)
    return _wrong_value(found) if kind in _KNOWN_TYPES else _own_rule(found)


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def _unknown_key(found: _Found) -> Problem:
    key, parent = str(found.path[-1]), found.path[:-1]
    known = found.table.part.model_fields if isinstance(found.table, Table) else ()
    what = f"unknown key '{key}' in {_named(found, parent)}" if parent else f"unknown section '{key}'"
    return Problem(what, found.node.key, _elsewhere(found, key, known) or _strange(found, key, known) or did_you_mean(key, known))


def _strange(found: _Found, key: str, known: Iterable[str]) -> str | None:
    """What another trainer's key is called here, or in which table a key of ours belongs."""
    section, _, name = (key_of(key) or "").rpartition(".")
    if section == dotted(found.path[:-1]) and name in known:
        return f"did you mean '{name}'?"
    if (hint := foreign_hint(key)) or get_close_matches(key, known, n=1, cutoff=0.8):
        return hint
    places = other_places(key, found.root)
    return f"'{key}' belongs elsewhere: {' or '.join(places)}" if places else None


def _named(found: _Found, parent: Key) -> str:
    """The table, with the chosen member where it belongs to a family."""
    kind = found.tree.nearest(parent).child("kind") if found.family else None
    return f"{dotted(parent)} of kind '{kind.content}'" if kind else dotted(parent)


def _elsewhere(found: _Found, key: str, known: Iterable[str]) -> str | None:
    """Which other members of the family have the key, where no key of the chosen one is meant."""
    if found.family is None or get_close_matches(key, known, n=1, cutoff=0.8):
        return None
    owners = " or ".join(f"'{name}'" for name, part in found.family.members.items() if key in part.model_fields)
    if not owners:
        return None
    return f"'{key}' is a key of kind {owners}" if found.family.key else f"'{key}' is a key of a model that is given by {owners}"


def _missing(found: _Found) -> Problem:
    """At the table that lacks the key, or at the file where a whole section is missing."""
    around, key = found.path[:-1], found.path[-1]
    node = found.tree.nearest(around)
    if isinstance(key, int):
        places = len(found.table.items) if isinstance(found.table, Array) else key + 1
        return Problem(f"{dotted(around)} needs {places} values, not {len(node.content)}", node.value)
    what = f"missing key '{key}' in {_named(found, around)}" if around else f"missing section [{key}]"
    hint = found.hint
    if isinstance(node.content, str):
        hint = f'write {{ kind = "{node.content}", {key} = ... }}; {hint}'
    return Problem(what, node.value if isinstance(node.content, str) else node.key, hint)


def _words(shape: Shape | None) -> str:
    return shape.words if shape else "another sort of value"


def _unknown_kind(found: _Found) -> Problem:
    """The name of a family's member is wrong: at the name, in whichever of the two forms it stands."""
    node = found.node.child("kind") or found.node
    members = found.shape.members if isinstance(found.shape, Family) else {}
    if not isinstance(node.content, str):
        return Problem(f"{found.name}.kind must be text, not {described(node.plain())}", node.value, f"known: {', '.join(sorted(members))}")
    return Problem(f"unknown kind '{node.content}' of {found.name}", node.value, did_you_mean(node.content, members))


def _kind_missing(found: _Found) -> Problem:
    members = found.shape.members if isinstance(found.shape, Family) else {}
    hint = f"kind is one of: {', '.join(sorted(members))}"
    named = [key for key in found.node.content if key in members] if isinstance(found.node.content, dict) else []
    if named:
        # `source = { hub = "..." }`: the name of a kind as a key.
        hint = f'did you mean kind = "{named[0]}"? its keys: {", ".join(key for key in members[named[0]].model_fields if key != "kind")}'
    return Problem(f"missing key 'kind' in {found.name}", found.node.key, hint)


def _wrong_value(found: _Found) -> Problem:
    """A value of another sort than what may stand here, or none of the words that may."""
    words = [str(value) for value in _fixed(found.shape)]
    if words and isinstance(found.given, str):
        return found.problem(f"unknown value '{found.given}' of {found.name}", did_you_mean(found.given, words))
    if isinstance(found.shape, Family) and found.shape.key:
        what = f"{found.name} must be the name of a kind or a table with it, not {described(found.given)}"
        return found.problem(what, f"kind is one of: {', '.join(sorted(found.shape.members))}")
    hints = [hint for hint in (_form(found.shape, found.given), found.hint) if hint]
    return found.problem(f"{found.name} must be {_words(found.shape)}, not {described(found.given)}", "; ".join(hints) or None)


def _form(shape: Shape | None, given: object) -> str | None:
    """How to write what may stand here, where one value stands in place of several."""
    if isinstance(given, dict | tuple):
        return None
    if isinstance(shape, AnyOf):
        return next((form for item in shape.alternatives if (form := _form(item, given))), None)
    if isinstance(shape, Table):
        return f"write {{ key = ... }} with keys among {', '.join(shape.part.model_fields)}"
    return "put it between brackets: [...]" if isinstance(shape, Array) else None


def _fixed(shape: Shape | None) -> tuple[object, ...]:
    """The words among which one may choose here."""
    if isinstance(shape, AnyOf):
        return tuple(value for item in shape.alternatives for value in _fixed(item))
    return shape.values if isinstance(shape, Choice) else ()


def _bad_pattern(found: _Found) -> Problem:
    text = str(found.error["input"])
    if found.error["ctx"]["pattern"] != _NAME_PATTERN:
        return found.problem(f"{found.name} has not the form it needs: '{text}'", found.hint)
    fitting = "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split())
    hint = f"{_NAME_RULE}; such as '{fitting}'" if fitting else _NAME_RULE
    return Problem(f"'{text}' is no name", _key_or_value(found), hint)


def _key_or_value(found: _Found) -> Location:
    return found.node.key if "[key]" in found.error["loc"][-1:] else found.node.value


def _size(found: _Found) -> Problem:
    """Too few or too many characters, values or keys."""
    context = found.error["ctx"]
    limit = context.get("min_length", context.get("max_length"))
    what = "must not be empty" if context.get("min_length") == 1 else f"is too {'short' if 'min_length' in context else 'long'}"
    unit = "character" if found.error["type"].startswith("string") else "value"
    rule = f"at {'least' if 'min_length' in context else 'most'} {limit} {unit}{'s' * (limit != 1)}"
    subject = f"the name '{found.path[-1]}'" if "[key]" in found.error["loc"][-1:] else found.name
    return Problem(f"{subject} {what}", _key_or_value(found), rule if not found.hint or limit != 1 else found.hint)


def _own_rule(found: _Found) -> Problem:
    """A rule that a section itself checks; it says by itself what is wrong."""
    cause = found.error.get("ctx", {}).get("error")
    hint = None
    if isinstance(found.shape, Family) and isinstance(found.node.content, dict):
        known = {name for part in found.shape.members.values() for name in part.model_fields}
        strange = [key for key in found.node.content if key not in known]
        named = (f"'{key}': {foreign}" for key in strange if (foreign := foreign_hint(key)))
        near = (did_you_mean(key, known) for key in strange if get_close_matches(key, known, n=1))
        hint = next(chain(named, near), None)
    what = str(cause or found.error["msg"])
    return Problem(_UNEVEN.sub(r"\1 (\2) must be divisible by \3 (\4)", what), found.node.value, hint)


_UNEVEN = re.compile(r"^(\w+) (\d+) is no multiple of (\w+) (\d+)$")
"""How the sizes of models say it: their words are part of what decides a step's identity, so that they are put otherwise here."""


_EXPLAIN: Mapping[str, Callable[[_Found], Problem]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_invalid": _unknown_kind,
    "union_tag_not_found": _kind_missing,
    "string_pattern_mismatch": _bad_pattern,
    "string_too_short": _size,
    "string_too_long": _size,
    "too_short": _size,
    "too_long": _size,
}
