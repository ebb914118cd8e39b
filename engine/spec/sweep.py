"""Sweeps: a spec with lists of values for some fields becomes one spec per point.

A point overrides the spec as the spec overrides what it extends, so that every value is validated and problems have its location.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import product
from math import prod
from typing import Any

from engine.core.digests import canonical
from engine.core.errors import Location, Problem, UserError
from engine.core.part import NAME_PATTERN, Part, is_resource
from engine.spec.notation import described, dotted, toml
from engine.spec.positions import Key
from engine.spec.tree import Node, override

LISTED = "points"
"""The key, and the name of the axis, of points that are listed one by one."""
_LONGEST_LABEL = 24
MOST_POINTS = 1_000
"""A sweep with more points is rejected unless `max_points` allows them: the lists of a grid multiply quickly."""


@dataclass(frozen=True)
class Choice:
    """One value of an axis: its label in names, and the fragment that overrides the spec."""

    label: str
    fragment: Node
    where: Location


@dataclass(frozen=True)
class Axis:
    """One dimension of a sweep: a field of the grid, or the listed points."""

    name: str
    where: Location
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Point:
    """One point of a sweep."""

    labels: tuple[str, ...]
    """Its label on each axis; axes with a single choice are left out, since they distinguish nothing."""
    axes: tuple[str, ...]
    """The axis of each label."""
    wheres: tuple[Location, ...] = field(compare=False)
    """The location of each axis."""
    values: Mapping[Key, Any] = field(compare=False)
    """Every swept field and its value at this point, including axes with a single choice."""


def expanded(document: Node) -> list[tuple[Point, Node]]:
    """The points of DOCUMENT, each with its resulting document; raises UserError for an invalid `sweep`."""
    sweep = document.content["sweep"]
    rest = replace(document, content={key: node for key, node in document.content.items() if key != "sweep"})
    axes = _axes(sweep)
    _refuse_many(sweep, axes)
    told_apart = [axis for axis in axes if len(axis.choices) > 1]
    found = []
    for choices in product(*(axis.choices for axis in axes)):
        fragments = [choice.fragment for choice in choices]
        labels = tuple(choice.label for choice, axis in zip(choices, axes, strict=True) if axis in told_apart)
        values = {path: node.plain() for fragment in fragments for path, node in _values(fragment)}
        point = Point(labels, tuple(axis.name for axis in told_apart), tuple(axis.where for axis in told_apart), values)
        found.append((point, reduce(override, [rest, *fragments])))
    return found


def _refuse_many(sweep: Node, axes: Sequence[Axis]) -> None:
    """Raise UserError for too many points, before any point is created: loading thousands takes minutes."""
    count, given = prod(len(axis.choices) for axis in axes), sweep.child("max_points")
    most = given.content if given and isinstance(given.content, int) else MOST_POINTS
    if count > most:
        lists = " x ".join(f"{len(axis.choices):,} of {axis.name}" for axis in axes)
        hint = f"shorten the lists, or list selected points under [[sweep.points]]; to allow all: sweep.max_points = {count}"
        raise UserError(
            f"this sweep has {count:,} points ({lists}), each a separate experiment; at most {most:,} are allowed", sweep.key, hint
        )


def _axes(sweep: Node) -> list[Axis]:
    """The axis of listed points, then the fields of the grid, sorted by name, since the order of keys in a table has no meaning."""
    grid, points = sweep.child("grid"), sweep.child(LISTED)
    fields = sorted(_fields(grid), key=lambda item: dotted(item[0])) if grid else []
    listed = points.content if points else ()
    found = [problem for path, node in fields for problem in _grid_problems(path, node)]
    found += [problem for node in listed for problem in _point_problems(node)]
    if not fields and not listed:
        hint = "set fields under [sweep.grid], for example training.learning_rate = [1e-4, 1e-3], or list [[sweep.points]]"
        found.append(Problem("a sweep needs at least one field or point", sweep.key, hint))
    if found:
        raise UserError(found)
    names = _short_names([path for path, _ in fields] + [path for node in listed for path, _ in _values(_fragment_of(node))])
    axes = [_listed_axis(points, names)] if points and listed else []
    axes += [_grid_axis(sweep.content["grid"], path, node, names[path]) for path, node in fields]
    if twice := [problem for axis in axes for problem in _clashes(axis)]:
        raise UserError(twice)
    return axes


def _fields(table: Node, path: Key = ()) -> Iterator[tuple[Key, Node]]:
    """The fields of a grid by path, each with its array of values."""
    for key, node in table.content.items():
        if isinstance(node.content, dict) and node.content:
            yield from _fields(node, (*path, key))
        else:
            yield (*path, key), node


def _values(fragment: Node, path: Key = ()) -> Iterator[tuple[Key, Node]]:
    """The values that a fragment sets, by path; a table with `kind` counts as one value."""
    for key, node in fragment.content.items():
        if isinstance(node.content, dict) and node.content and "kind" not in node.content:
            yield from _values(node, (*path, key))
        else:
            yield (*path, key), node


def _grid_problems(path: Key, node: Node) -> Iterator[Problem]:
    name = dotted(path)
    if path == ("experiment", "name"):
        yield _named_by_values(node)
    elif not isinstance(node.content, tuple):
        what = f"sweep.grid.{name} must be an array of values, not {described(node.plain())}"
        yield Problem(what, node.value, f"each value is one point: {name} = [{toml(node.plain())}]")
    elif not node.content:
        yield Problem(f"sweep.grid.{name} has no values", node.value, "list its values, or remove the field")


def _point_problems(node: Node) -> Iterator[Problem]:
    name, experiment = node.child("name"), node.child("experiment")
    if name and not (isinstance(name.content, str) and re.fullmatch(NAME_PATTERN, name.content)):
        hint = "a name consists of lower-case letters and digits, separated by '-' or '_'"
        yield Problem(f"invalid name for a point: {described(name.plain())}", name.value, hint)
    if experiment and (given := experiment.child("name")):
        yield _named_by_values(given)


def _named_by_values(node: Node) -> Problem:
    return Problem(
        "experiment.name cannot be swept: points are named by their values", node.key, 'to name a listed point, set `name = "..."` in it'
    )


def _grid_axis(grid: Node, path: Key, node: Node, name: str) -> Axis:
    choices = tuple(Choice(_label(name, item.plain()), _at(grid, path, replace(item, key=node.key)), item.value) for item in node.content)
    return Axis(dotted(path), node.key, choices)


def _at(grid: Node, path: Key, node: Node) -> Node:
    """NODE wrapped in the tables of GRID along PATH."""
    for length in range(len(path) - 1, -1, -1):
        node = replace(grid.nearest(path[:length]), content={path[length]: node})
    return node


def _fragment_of(point: Node) -> Node:
    return replace(point, content={key: node for key, node in point.content.items() if key != "name"})


def _listed_axis(points: Node, names: Mapping[Key, str]) -> Axis:
    choices = []
    for node in points.content:
        fragment, name = _fragment_of(node), node.child("name")
        label = (
            "-".join(_label(names[path], item.plain()) for path, item in sorted(_values(fragment), key=lambda item: dotted(item[0])))
            or "plain"
        )
        choices.append(Choice(name.content if name else label, fragment, node.value))
    return Axis(LISTED, points.key, tuple(choices))


def _clashes(axis: Axis) -> Iterator[Problem]:
    """A problem for each pair of choices with the same label."""
    first: dict[str, Choice] = {}
    for choice in axis.choices:
        other = first.setdefault(choice.label, choice)
        if other is not choice:
            same = canonical(other.fragment.plain()) == canonical(choice.fragment.plain())
            what = f"duplicate point: {choice.label}" if same else f"two points would both be named {choice.label}"
            hint = f"the other one is at {other.where}"
            yield Problem(what, choice.where, hint if same else f'{hint}; list them under [[sweep.points]], each with a `name = "..."`')


def _short_names(paths: Sequence[Key]) -> dict[Key, str]:
    """The shortest suffix of each field's path that is unique among PATHS, joined by `_`; a trailing `kind` is dropped."""
    plain = {path: [str(key) for key in (path[:-1] if path[-1] == "kind" else path)] for path in dict.fromkeys(paths)}
    found = {}
    for path, words in plain.items():
        others = [other for other in plain.values() if other is not words]
        length = next((n for n in range(1, len(words)) if all(other[-n:] != words[-n:] for other in others)), len(words))
        found[path] = _cleaned("_".join(words[-length:]))
    return found


def _label(name: str, value: object) -> str:
    """The label of a field's value, such as `r_4`; a value that is empty or too long as text is replaced by a digest."""
    text = _words(value)
    if not text or len(text) > _LONGEST_LABEL:
        text = hashlib.sha256(canonical(value).encode()).hexdigest()[:8]
    return f"{name}_{text}"


def _words(value: object) -> str:
    match value:
        case str():
            return _cleaned(value)
        case tuple():
            return "_".join(_words(item) for item in value)
        case dict():
            rest = [f"{_cleaned(str(key))}_{_words(item)}" for key, item in sorted(value.items()) if key != "kind"]
            return "_".join([*([_words(value["kind"])] if "kind" in value else []), *rest])
        case bool():
            return "true" if value else "false"
        case int() | float() if value < 0:
            return f"minus_{_words(-value)}"
    return str(value).replace("+", "").replace(".", "_")  # the minus of 2e-05 stays, to distinguish it from 2e05


def _cleaned(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def resource_problems(point: Point, document: Node, experiment: Part) -> Iterator[Problem]:
    """A problem for each swept field that affects only how steps run: all its values give the same result."""
    for path in point.values:
        for length in range(1, len(path) + 1):
            if _is_resource(experiment, path[:length]):
                hint = "set it once in the spec, and sweep fields that affect the result"
                what = f"{dotted(path)} cannot be swept: it affects only how steps run, so all its values give the same result"
                yield Problem(what, document.nearest(path).key, hint)
                break


def _is_resource(value: object, path: Key) -> bool:
    for key in path[:-1]:
        value = getattr(value, str(key), None) if isinstance(value, Part) else value.get(key) if isinstance(value, dict) else None
    found = type(value).model_fields.get(str(path[-1])) if isinstance(value, Part) else None
    return found is not None and is_resource(found)
