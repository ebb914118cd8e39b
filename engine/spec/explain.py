"""Every value of a resolved spec and its origin, for `engine show`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.core.errors import Location
from engine.core.part import Part
from engine.spec.notation import dotted, toml
from engine.spec.positions import Key
from engine.spec.sections import Spec


@dataclass(frozen=True)
class Explained:
    """One value of a spec and its origin."""

    key: str
    """Dotted, as in TOML; elements of arrays of tables by index, such as `evaluation.metrics[0].kind`."""
    value: str
    """In TOML syntax; `none` for a missing value, which TOML cannot express."""
    data: Any
    """As a JSON value."""
    where: Location | None
    """Where a file sets it; None: it is the default."""
    point: str | None = None
    """The point of a sweep that has this value; None: all points have it."""

    @property
    def named(self) -> str:
        """The key as shown to users, prefixed by the point if the value is specific to one."""
        return f"{self.point}: {self.key}" if self.point else self.key

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = {"key": self.key, "value": self.data, "from": str(self.where) if self.where else "default"}
        return found | ({"point": self.point} if self.point else {})


def explain(spec: Spec) -> list[Explained]:
    """Every scalar of SPEC in the order of its sections; an array of scalars counts as one value."""
    return [Explained(dotted(path), toml(value), _plain(value), spec.origins.get(path)) for path, value in _leaves((), spec.experiment)]


def explain_all(specs: Sequence[Spec]) -> list[Explained]:
    """The values of the points of one sweep: first the values that all points share, then the rest, point by point."""
    if len(specs) == 1:
        return explain(specs[0])
    explained = [explain(spec) for spec in specs]
    by_key = [{value.key: value.value for value in values} for values in explained]
    common = {key for key, value in by_key[0].items() if all(other.get(key) == value for other in by_key)}
    shared = [value for value in explained[0] if value.key in common]
    by_point = zip(specs, explained, strict=True)
    return shared + [replace(value, point=spec.name) for spec, values in by_point for value in values if value.key not in common]


def _plain(value: object) -> Any:
    """VALUE with tuples converted to lists; the only table that a leaf can be is the empty one."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _leaves(path: Key, value: object) -> Iterator[tuple[Key, object]]:
    if isinstance(value, Part):
        for name in type(value).model_fields:
            yield from _leaves((*path, name), getattr(value, name))
    elif isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves((*path, key), item)
    elif isinstance(value, tuple) and any(isinstance(item, Part) for item in value):
        for index, item in enumerate(value):
            yield from _leaves((*path, index), item)
    else:
        yield path, value
