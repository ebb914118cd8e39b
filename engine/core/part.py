"""What every piece of a spec is made of: frozen models whose fields are recipe unless marked as resource, and kinds of steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

_RESOURCE: JsonDict = {"resource": True}


@dataclass(frozen=True)
class Need:
    """Something that a step reads because a part of its parameters names it: a path, the rows of another task, or a model of the hub."""

    field: tuple[str | int, ...]
    """Where in the part it is named."""
    path: str | None = None
    task: str | None = None
    split: str | None = None
    """Of a task's rows only this split; none given: all rows that it generates."""
    model: tuple[str, str] | None = None
    """A model of the hub: id and revision."""
    name: str = ""
    """What tells apart several needs of one part; the step's role of it is the part's place and this name."""


class Part(BaseModel):
    """A frozen piece of a spec that refuses unknown keys and values of another type."""

    # strict: "3" is no number and 1 is no boolean; the loader turns TOML's arrays into tuples so that strictness costs nothing.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    environment: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version decides the result when this part is chosen, beside those of the kind."""

    def needs(self) -> tuple[Need, ...]:
        """What a step that holds this part reads for it, beside what every step of its kind reads."""
        return ()

    def placed(self, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], "Part"]]:
        """This part and every part inside it, depth first, each with its place."""
        yield place, self
        for name in type(self).model_fields:
            yield from _placed_in(getattr(self, name), (*place, name))

    def parts(self) -> Iterator["Part"]:
        """This part and every part inside it, depth first."""
        return (part for _, part in self.placed())


def with_tuples(value: Any) -> Any:
    """VALUE with every list as a tuple: strict parts take nothing else, and TOML and JSON know only lists."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return tuple(with_tuples(item) for item in value) if isinstance(value, list) else value


def _placed_in(value: object, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Part]]:
    if isinstance(value, Part):
        yield from value.placed(place)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _placed_in(item, (*place, key))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _placed_in(item, (*place, index))


def parts_in(value: object) -> Iterator[Part]:
    """The outermost parts in VALUE: itself, or those that a mapping or a tuple holds."""
    if isinstance(value, Part):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from parts_in(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from parts_in(item)


def recipe(default: Any = ..., description: str = "", **constraints: Any) -> Any:
    """A field that decides the result: it is part of the step's identity."""
    return Field(default, description=description, **constraints)


def resource(default: Any = ..., description: str = "", **constraints: Any) -> Any:
    """A field that only decides how a step runs: it never enters the identity."""
    return Field(default, description=description, json_schema_extra=_RESOURCE, **constraints)


def is_resource(field: FieldInfo) -> bool:
    return field.json_schema_extra == _RESOURCE


@dataclass(frozen=True)
class Kind:
    """A sort of step: its parameters, the packages whose versions decide its result, and the small files that git keeps of it."""

    name: str
    summary: str
    parameters: type[Part]
    environment: tuple[str, ...] = ()
    slot: str = "cpu"
    """What a running step occupies besides a process: `device` for training and generation, of which there are as many as devices."""
    plots: bool = False
    """Whether the body writes a plot (one CSV file)."""
    plot: Mapping[str, str] = field(default_factory=lambda: {"x": "step", "y": "loss"}, compare=False)
    """How `dvc plots` draws it: the columns of both axes, and the template where it is no line."""


def _from_name(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


named = BeforeValidator(_from_name)
"""Lets a member of a family be written by its name alone: `mask = "full"` for `mask = { kind = "full" }`."""

NAME_PATTERN, LONGEST_NAME = r"^[a-z0-9][a-z0-9_]*(-[a-z0-9_]+)*$", 60
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]
"""A name that ends up in step names and paths: lower case, digits, `-` and `_`."""
