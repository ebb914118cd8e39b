"""Validates documents; turns pydantic's errors into messages, each with the location of the key or value at fault."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from engine.core.errors import Location, Problem, UserError, did_you_mean
from engine.core.part import Name, Part
from engine.spec.foreign import foreign_hint, key_of
from engine.spec.notation import described, dotted
from engine.spec.places import deeper_places, other_places
from engine.spec.positions import Key
from engine.spec.references import reference_problems
from engine.spec.shapes import AnyOf, Array, Choice, Family, Map, Shape, Table
from engine.spec.tree import Node

P = TypeVar("P", bound=Part)

_KNOWN_TYPES = set(get_args(ErrorType)) - {"value_error", "assertion_error"}
"""The error types of pydantic itself; all others are rules of a section, which have their own messages."""
_NAME_PATTERN = next(item.pattern for info in get_args(Name)[1:] for item in info.metadata if hasattr(item, "pattern"))
_NAME_RULE = "a name consists of lower-case letters and digits, separated by '-' or '_'"
_COMMIT_HASH = r"^[0-9a-f]{40}$"
_FORMS = {
    _COMMIT_HASH: "be a full commit hash (40 hex digits)",
    r"^[\w.-]+(/[\w.-]+)?$": "be a hub id, such as 'owner/name'",
    r"^[\w.-]+$": "be a file name without a folder",
    r"\.gguf$": "be a file that ends in .gguf",
    r"^\d{4}-\d\d-\d\d$": "be a date of the form YYYY-MM-DD",
    r"^https?://[^\s/?#@]+(/[^\s?#]*)?$": "be an http or https URL without credentials, query or fragment",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "be the name of an environment variable",
    r"^[1-9][0-9]*(KB|MB|GB)$": "be a size, such as '5GB'",
}
"""What a value must be, by the pattern of its field."""
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}


@dataclass(frozen=True)
class _Found:
    """An error of pydantic, mapped to the document: the path without pydantic's tags, and what is allowed there."""

    error: ErrorDetails
    path: Key
    """The path of the error; for a missing key, the path of that key."""
    shape: Shape | None
    """What is allowed at the path, if known."""
    table: Shape | None
    """The shape of the enclosing table or array; for a family, that of the chosen member."""
    family: Family | None
    """The family that the enclosing table is a member of, if any."""
    field: FieldInfo | None
    root: type[Part]
    """The model of the whole document."""
    choice: Key | None
    """The path at which pydantic tried several alternative types, if it did."""
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
        """A problem located at the value."""
        return Problem(what, self.node.value, hint)


def validated(document: Node, files: tuple[str, ...], part: type[P]) -> P:
    """What DOCUMENT, read from FILES, describes; raises UserError with all problems, ordered by location in FILES."""
    found, value = list[tuple[Key, Problem]](), None
    try:
        value = part.model_validate(document.plain())
    except ValidationError as error:
        found = problems(error.errors(), document, part)
    paths = {path for path, _ in found}
    others = [*_forgotten(document, part), *reference_problems(document)]
    found += [(path, problem) for path, problem in others if path not in paths]
    if value is None or found:
        raise UserError(sorted((problem for _, problem in found), key=lambda problem: _place(problem, files)))
    return value


_TOGETHER = ("mixture", "training")
"""Sections of which neither may stand without the other."""


def _forgotten(document: Node, part: type[Part]) -> Iterator[tuple[Key, Problem]]:
    """The section that is missing beside the one of `_TOGETHER` that is there.

    The model of a spec has this rule too, but pydantic tries it only where all sections are valid by themselves.
    """
    missing = [name for name in _TOGETHER if name in part.model_fields and name not in document.content]
    if len(missing) == 1 and not get_close_matches(missing[0], document.content.keys() - part.model_fields.keys()):
        yield (
            (missing[0],),
            Problem(f"missing section [{missing[0]}]", document.key, f"{missing[0]}: {part.model_fields[missing[0]].description}"),
        )


def _place(problem: Problem, files: tuple[str, ...]) -> tuple[int, int, int]:
    where = problem.where
    assert where, f"problem without a location: {problem}"
    return files.index(where.file), where.line or 0, where.column or 0


def problems(errors: Iterable[ErrorDetails], tree: Node, part: type[Part]) -> list[tuple[Key, Problem]]:
    """A problem with its path for each error; the errors of all alternatives that were tried for one value become one problem."""
    found = _one_per_choice([_locate(error, tree, part) for error in errors])
    return [(item.path, _explain(item)) for item in found]


def _locate(error: ErrorDetails, tree: Node, part: type[Part]) -> _Found:
    """Follow pydantic's path through the shapes; the path also contains members of families and the alternatives that were tried."""
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
    """The alternative that matches the value's type, so that errors inside the value can be located."""
    sorts: dict[type, tuple[type, ...]] = {tuple: (Array,), dict: (Table, Map, Family)}
    return next((item for item in shape.alternatives if isinstance(item, sorts.get(type(value), ()))), None)


def _one_per_choice(found: list[_Found]) -> list[_Found]:
    """Of the errors of all alternatives for one value, keep those inside the value; if there are none, keep one error about the value."""
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
    """A hint for a key of another trainer, or for a key of ours in the wrong table."""
    if deeper := deeper_places(key, found.path[:-1], found.root):
        return f"'{key}' belongs in another table: {' or '.join(deeper)}"
    section, _, name = (key_of(key) or "").rpartition(".")
    if section == dotted(found.path[:-1]) and name in known:
        return f"did you mean '{name}'?"
    if (hint := foreign_hint(key)) or get_close_matches(key, known, n=1, cutoff=0.8):
        return hint
    places = other_places(key, found.root)
    return f"'{key}' belongs in another table: {' or '.join(places)}" if places else None


def _named(found: _Found, parent: Key) -> str:
    """The table's dotted name, followed by its kind if it is a member of a family."""
    kind = found.tree.nearest(parent).child("kind") if found.family else None
    return f"{dotted(parent)} of kind '{kind.content}'" if kind else dotted(parent)


def _elsewhere(found: _Found, key: str, known: Iterable[str]) -> str | None:
    """A hint with the other members of the family that have the key, unless it resembles a key of the chosen member."""
    if found.family is None or get_close_matches(key, known, n=1, cutoff=0.8):
        return None
    owners = " or ".join(f"'{name}'" for name, part in found.family.members.items() if key in part.model_fields)
    if not owners:
        return None
    return f"'{key}' is a key of kind {owners}" if found.family.key else f"'{key}' is a key of a model with {owners}"


def _missing(found: _Found) -> Problem:
    """A missing key, located at its table, or a missing section, located at the file."""
    around, key = found.path[:-1], found.path[-1]
    node = found.tree.nearest(around)
    if isinstance(key, int):
        places = len(found.table.items) if isinstance(found.table, Array) else key + 1
        return Problem(f"{dotted(around)} needs {places} values, got {len(node.content)}", node.value)
    what = f"missing key '{key}' in {_named(found, around)}" if around else f"missing section [{key}]"
    hint = found.hint
    if isinstance(node.content, str):
        hint = f'write {{ kind = "{node.content}", {key} = ... }}; {hint}'
    return Problem(what, node.value if isinstance(node.content, str) else node.key, hint)


def _words(shape: Shape | None) -> str:
    return shape.words if shape else "a value of another type"


def _unknown_kind(found: _Found) -> Problem:
    """An unknown member of a family, located at its name in either notation (`x = "name"` or `x.kind = "name"`)."""
    node = found.node.child("kind") or found.node
    members = found.shape.members if isinstance(found.shape, Family) else {}
    if not isinstance(node.content, str):
        return Problem(
            f"{found.name}.kind must be a string, not {described(node.plain())}", node.value, f"known: {', '.join(sorted(members))}"
        )
    return Problem(f"unknown kind '{node.content}' of {found.name}", node.value, did_you_mean(node.content, members))


def _kind_missing(found: _Found) -> Problem:
    members = found.shape.members if isinstance(found.shape, Family) else {}
    hint = f"kind is one of: {', '.join(sorted(members))}"
    named = [key for key in found.node.content if key in members] if isinstance(found.node.content, dict) else []
    if named:
        # `source = { hub = "..." }`: a kind's name used as a key.
        hint = f'did you mean kind = "{named[0]}"? its keys: {", ".join(key for key in members[named[0]].model_fields if key != "kind")}'
    return Problem(f"missing key 'kind' in {found.name}", found.node.key, hint)


def _wrong_value(found: _Found) -> Problem:
    """A value of the wrong type, or a string that is not one of the allowed values."""
    words = [str(value) for value in _fixed(found.shape)]
    if words and isinstance(found.given, str):
        return found.problem(f"unknown value '{found.given}' of {found.name}", did_you_mean(found.given, words))
    if isinstance(found.shape, Family) and found.shape.key:
        what = f"{found.name} must be the name of a kind or a table with the key kind, not {described(found.given)}"
        return found.problem(what, f"kind is one of: {', '.join(sorted(found.shape.members))}")
    hints = [hint for hint in (_form(found.shape, found.given), found.hint) if hint]
    return found.problem(f"{found.name} must be {_words(found.shape)}, not {described(found.given)}", "; ".join(hints) or None)


def _form(shape: Shape | None, given: object) -> str | None:
    """How to write the table or array that is required, for a scalar given instead."""
    if isinstance(given, dict | tuple):
        return None
    if isinstance(shape, AnyOf):
        return next((form for item in shape.alternatives if (form := _form(item, given))), None)
    if isinstance(shape, Table):
        return f"write {{ key = ... }}; keys: {', '.join(shape.part.model_fields)}"
    return "write it in brackets: [...]" if isinstance(shape, Array) else None


def _fixed(shape: Shape | None) -> tuple[object, ...]:
    """The fixed values that SHAPE allows; empty if it allows others."""
    if isinstance(shape, AnyOf):
        return tuple(value for item in shape.alternatives for value in _fixed(item))
    return shape.values if isinstance(shape, Choice) else ()


def _bad_pattern(found: _Found) -> Problem:
    text = str(found.error["input"])
    if found.error["ctx"]["pattern"] != _NAME_PATTERN:
        form = _FORMS.get(pattern := found.error["ctx"]["pattern"], f"match the pattern {pattern}")
        hint = "set the commit that a branch or tag names now with: engine pin" if pattern == _COMMIT_HASH else found.hint
        return found.problem(f"{found.name} must {form}, got '{text}'", hint)
    fitting = "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split())
    hint = f"{_NAME_RULE}, such as '{fitting}'" if fitting else _NAME_RULE
    return Problem(f"invalid name '{text}'", _key_or_value(found), hint)


def _key_or_value(found: _Found) -> Location:
    return found.node.key if "[key]" in found.error["loc"][-1:] else found.node.value


def _size(found: _Found) -> Problem:
    """A string, array or table that is too short or too long."""
    context = found.error["ctx"]
    limit = context.get("min_length", context.get("max_length"))
    what = "must not be empty" if context.get("min_length") == 1 else f"is too {'short' if 'min_length' in context else 'long'}"
    unit = "character" if found.error["type"].startswith("string") else "value"
    rule = f"at {'least' if 'min_length' in context else 'most'} {limit} {unit}{'s' * (limit != 1)}"
    subject = f"the name '{found.path[-1]}'" if "[key]" in found.error["loc"][-1:] else found.name
    return Problem(f"{subject} {what}", _key_or_value(found), rule if not found.hint or limit != 1 else found.hint)


def _own_rule(found: _Found) -> Problem:
    """A violated rule of a section, whose own message says what is wrong."""
    cause = found.error.get("ctx", {}).get("error")
    hint = None
    if isinstance(found.shape, Family) and isinstance(found.node.content, dict):
        known = {name for part in found.shape.members.values() for name in part.model_fields}
        strange = [key for key in found.node.content if key not in known]
        named = (f"'{key}': {foreign}" for key in strange if (foreign := foreign_hint(key)))
        near = (did_you_mean(key, known) for key in strange if get_close_matches(key, known, n=1))
        hint = next(chain(named, near), None)
    return Problem(str(cause or found.error["msg"]), found.node.value, hint)


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
