"""The building blocks of a spec: frozen models whose fields belong to the recipe unless marked as resources, and kinds of steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

_RESOURCE: JsonDict = {"resource": True}


@dataclass(frozen=True)
class Need:
    """An input that a part of a step's parameters requires: a path, the rows of another task, pairs, or a model on the hub."""

    field: tuple[str | int, ...]
    """Path of the field that names it, inside the part."""
    path: str | None = None
    task: str | None = None
    split: str | None = None
    """Only this split of the task's rows; None: all rows that it generates."""
    pairs: str | None = None
    """Pairs of the spec: their step's output FILE."""
    file: str = ""
    model: tuple[str, str] | None = None
    """A model on the hub: id and revision."""
    name: str = ""
    """Distinguishes several needs of one part; the input's role is the part's place followed by this name."""


class Part(BaseModel):
    """A frozen piece of a spec; rejects unknown keys and values of the wrong type."""

    # strict: "3" is not a number and 1 is not a boolean; the loader turns TOML's arrays into tuples, which strict mode requires.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    environment: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions affect the result when this part is used, in addition to those of the kind."""

    def needs(self) -> tuple[Need, ...]:
        """The inputs that this part requires, in addition to those of every step of the kind."""
        return ()

    def placed(self, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], "Part"]]:
        """This part and every part inside it, depth first, each with its path."""
        yield place, self
        for name in type(self).model_fields:
            yield from _placed_in(getattr(self, name), (*place, name))

    def parts(self) -> Iterator["Part"]:
        """This part and every part inside it, depth first."""
        return (part for _, part in self.placed())


def with_tuples(value: Any) -> Any:
    """VALUE with every list converted to a tuple: strict parts accept only tuples, and TOML and JSON parse to lists."""
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
    """The outermost parts in VALUE: VALUE itself, or the parts inside a mapping or tuple."""
    if isinstance(value, Part):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from parts_in(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from parts_in(item)


def recipe(default: Any = ..., description: str = "", **constraints: Any) -> Any:
    """A field that affects the result and belongs to the step's identity."""
    return Field(default, description=description, **constraints)


def resource(default: Any = ..., description: str = "", **constraints: Any) -> Any:
    """A field that affects only how a step runs and does not belong to its identity."""
    return Field(default, description=description, json_schema_extra=_RESOURCE, **constraints)


def is_resource(field: FieldInfo) -> bool:
    return field.json_schema_extra == _RESOURCE


@dataclass(frozen=True)
class Kind:
    """A kind of step: its parameters, the packages whose versions affect its result, the device it needs, and its plot."""

    name: str
    summary: str
    parameters: type[Part]
    environment: tuple[str, ...] = ()
    slot: str = "cpu"
    """What a running step occupies besides a process: `device` for training and generation, at most one per device."""
    plots: bool = False
    """Whether the body writes a plot (one CSV file)."""
    plot: Mapping[str, str] = field(default_factory=lambda: {"x": "step", "y": "loss"}, compare=False)
    """How `dvc plots` draws it: the columns of both axes, and the template unless it is a line plot."""


def _from_name(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


named = BeforeValidator(_from_name)
"""Allows a member of a family to be written as its name alone: `mask = "full"` for `mask = { kind = "full" }`."""

NAME_PATTERN, LONGEST_NAME = r"^[a-z0-9][a-z0-9_]*(-[a-z0-9_]+)*$", 60
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]
"""A name that is used in step names and paths: lower-case letters, digits, `-` and `_`."""
