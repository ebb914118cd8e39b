"""The tables of a spec that accept a key, for hints on keys in the wrong table."""

from collections.abc import Iterator, Mapping
from functools import cache

from engine.core.part import Part
from engine.spec.positions import Key
from engine.spec.shapes import AnyOf, Array, Family, Map, Shape, Table

USER_DEFINED = "<name>"
"""Stands for a user-defined name in a place."""

_MOST = 3
"""A key with more places than this is too generic for a hint."""


def other_places(key: str, part: type[Part]) -> tuple[str, ...]:
    """The places of KEY in a spec whose root is PART, empty if there are more than three."""
    found = _places(part).get(key, ())
    return found if len(found) <= _MOST else ()


def deeper_places(key: str, table: Key, part: type[Part]) -> tuple[str, ...]:
    """The places of KEY in tables below TABLE that have no user-defined names; empty if there are more than three."""
    above = [name for name in table if isinstance(name, str)]
    found = []
    for place in _places(part).get(key, ()):
        names = place.split(".")
        beginning, rest = names[: len(above)], names[len(above) :]
        if (
            len(rest) > 1
            and USER_DEFINED not in rest
            and all(name in (USER_DEFINED, own) for name, own in zip(beginning, above, strict=True))
        ):
            found.append(".".join([*above, *rest]))
    return tuple(found) if above and len(found) <= _MOST else ()


@cache
def _places(part: type[Part]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for place in _walk(Table(part), "", ()):
        found.setdefault(place.rpartition(".")[2], {})[place] = None
    return {key: tuple(places) for key, places in found.items()}


def _walk(shape: Shape | None, place: str, above: tuple[type[Part], ...]) -> Iterator[str]:
    """The place of every key below PLACE; ABOVE holds the enclosing parts, since parts may be recursive."""
    match shape:
        case Table(part) if part not in above:
            for key in part.model_fields:
                here = f"{place}.{key}" if place else key
                yield here
                yield from _walk(shape.child(key), here, (*above, part))
        case Family(_, members):
            for member in members.values():
                yield from _walk(Table(member), place, above)
        case Map(values):
            yield from _walk(values, f"{place}.{USER_DEFINED}", above)
        case Array(items, rest):
            for item in (*items, rest):
                yield from _walk(item, place, above)
        case AnyOf(alternatives):
            for alternative in alternatives:
                yield from _walk(alternative, place, above)
