"""The shapes of values in a spec, derived from the annotations of its sections: allowed keys, members of families, descriptions."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Tag
from pydantic.fields import FieldInfo

from engine.core.part import Part


@dataclass(frozen=True)
class Scalar:
    """A scalar of a type."""

    type: Any

    @property
    def words(self) -> str:
        names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", Any: "any value"}
        return names.get(self.type, "a value of another type")


@dataclass(frozen=True)
class Choice:
    """One of several fixed values."""

    values: tuple[object, ...]

    @property
    def words(self) -> str:
        return " or ".join(str(value).lower() if isinstance(value, bool) else f"'{value}'" for value in self.values)


@dataclass(frozen=True)
class Table:
    """A table whose keys are the fields of a part."""

    part: type[Part]

    @property
    def words(self) -> str:
        return "a table"

    def child(self, key: object) -> "Shape | None":
        field = self.part.model_fields.get(key) if isinstance(key, str) else None
        return shape_of_field(field) if field else None


@dataclass(frozen=True)
class Family:
    """Alternatives with a discriminator: the key `kind`, or, if `key` is None, the set of keys that are present."""

    key: str | None
    members: Mapping[str, type[Part]]

    @property
    def words(self) -> str:
        return f"a table with {self.key}" if self.key else "a table"


@dataclass(frozen=True)
class Map:
    """A table with user-defined names as keys."""

    values: "Shape"

    @property
    def words(self) -> str:
        return "a table"


@dataclass(frozen=True)
class Array:
    """An array: either of fixed length, with the shape of each element in `items`, or with `rest` as the shape of all elements."""

    items: tuple["Shape", ...]
    rest: "Shape | None"

    @property
    def words(self) -> str:
        if self.rest is None:
            return f"an array of {len(self.items)} values"
        plural = {"an integer": "integers", "a number": "numbers", "a string": "strings", "a table": "tables"}
        return f"an array of {plural.get(self.rest.words, self.rest.words)}"

    def child(self, index: object) -> "Shape | None":
        return self.items[index] if isinstance(index, int) and index < len(self.items) else self.rest


@dataclass(frozen=True)
class AnyOf:
    """Alternatives of different types, such as a string or an array."""

    alternatives: tuple["Shape", ...]

    @property
    def words(self) -> str:
        return " or ".join(shape.words for shape in self.alternatives)


Shape = Scalar | Choice | Table | Family | Map | Array | AnyOf


def shape_of_field(field: FieldInfo) -> Shape:
    """The shape of a field of a part."""
    return _shape(field.annotation, field.discriminator or _discriminator(field.metadata))


def shape_of(annotation: Any) -> Shape:
    """The shape of any annotation that occurs in a part."""
    return _shape(annotation, None)


def _discriminator(metadata: Any) -> Any:
    """The discriminator in METADATA, given directly or in a FieldInfo; None if there is none."""
    found = (getattr(item, "discriminator", None) for item in metadata)
    return next((item for item in found if item is not None), None)


def _shape(annotation: Any, discriminator: Any) -> Shape:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shape(arguments[0], discriminator or _discriminator(arguments[1:]))
    if origin in (Union, types.UnionType):
        return _union([a for a in arguments if a is not type(None)], discriminator)
    if origin is Literal:
        return Choice(arguments)
    if origin is tuple:
        repeated = len(arguments) == 2 and arguments[1] is Ellipsis
        return Array((), shape_of(arguments[0])) if repeated else Array(tuple(shape_of(a) for a in arguments), None)
    if origin is dict:
        return Map(shape_of(arguments[1]))
    return Table(annotation) if isinstance(annotation, type) and issubclass(annotation, Part) else Scalar(annotation)


def _union(members: list[Any], discriminator: Any) -> Shape:
    if len(members) == 1:
        return _shape(members[0], discriminator)
    if discriminator is None:
        return AnyOf(tuple(shape_of(member) for member in members))
    key = discriminator if isinstance(discriminator, str) else None
    return Family(key, dict(tagged for member in members for tagged in _tagged(member, key)))


def _tagged(member: Any, key: str | None) -> Iterator[tuple[str, type[Part]]]:
    """Each tag of a family's member, with its part."""
    if key is None:
        part, *metadata = get_args(member)
        yield next(item.tag for item in metadata if isinstance(item, Tag)), part
    else:
        for tag in get_args(member.model_fields[key].annotation):
            yield tag, member
