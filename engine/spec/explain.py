"""Every value of a resolved spec and where it comes from, for `engine show`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.core.errors import Location
from engine.core.part import Part
from engine.spec.load import Spec
from engine.spec.notation import dotted, toml
from engine.spec.positions import Key


@dataclass(frozen=True)
class Explained:
    """One value of a spec."""

    key: str
    """Dotted, as in TOML; elements of arrays of tables by index, such as `evaluation.metrics[0].kind`."""
    value: str
    """As TOML writes it; `none` where no value is given, which TOML cannot write."""
    data: Any
    """As JSON holds it."""
    where: Location | None
    """Where a file gives it; None: it is the default."""
    point: str | None = None
    """The point of a sweep that has it; None: all have."""

    @property
    def named(self) -> str:
        """The key for people, with the point that it is about."""
        return f"{self.point}: {self.key}" if self.point else self.key

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = {"key": self.key, "value": self.data, "from": str(self.where) if self.where else "default"}
        return found | ({"point": self.point} if self.point else {})


def explain(spec: Spec) -> list[Explained]:
    """Every single value of SPEC in the order of its sections; an array of single values is one of them."""
    return [Explained(dotted(path), toml(value), _plain(value), spec.origins.get(path)) for path, value in _leaves((), spec.experiment)]


def explain_all(specs: Sequence[Spec]) -> list[Explained]:
    """The values of the points of one sweep: first those that all have, then, point by point, those in which they differ."""
    if len(specs) == 1:
        return explain(specs[0])
    explained = [explain(spec) for spec in specs]
    told = [{value.key: value.value for value in values} for values in explained]
    common = {key for key, value in told[0].items() if all(other.get(key) == value for other in told)}
    shared = [value for value in explained[0] if value.key in common]
    own = zip(specs, explained, strict=True)
    return shared + [replace(value, point=spec.name) for spec, values in own for value in values if value.key not in common]


def _plain(value: object) -> Any:
    """VALUE with arrays as JSON's; a leaf holds no tables but the empty one."""
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
