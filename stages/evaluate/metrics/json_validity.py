"""How often the answer is JSON of a wanted form, as pydantic judges it."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, proportion_of
from stages.rows.strict_json import parse

FieldType = Literal["string", "integer", "number", "boolean", "array", "object"]
"""The types of JSON Schema, but for its empty one."""


class JsonValidity(Part):
    """Share of the answers that are JSON, and, where fields are given, share of those that are objects with these fields.

    What is no JSON number (`NaN`, `Infinity`, `1e999`) and a key that stands twice in one object make an answer invalid."""

    kind: Literal["json_validity"] = "json_validity"
    fields: dict[str, FieldType] = recipe({}, "Fields that the object must have, and the type of each in JSON Schema's words.")
    optional: tuple[str, ...] = recipe((), "Fields that may be missing.")
    extra: bool = recipe(False, "Whether the object may have other fields.")
    environment: ClassVar[tuple[str, ...]] = ("pydantic",)
    needs_reference: ClassVar[bool] = False

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`json_rate` and, with fields, `schema_rate`; an answer that never ended is neither."""
        parsers = {"json_rate": parse, **({"schema_rate": self._object()} if self.fields else {})}
        return [proportion_of(name, [p.ended and _accepts(read, answer_of(p)) for p in predictions]) for name, read in parsers.items()]

    def _object(self) -> Callable[[str], object]:
        from pydantic import ConfigDict, create_model

        types = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
        # Aliases: a field of the user's may have a name that pydantic keeps to itself.
        fields: dict[str, Any] = {}
        for number, (name, wanted) in enumerate(self.fields.items()):
            fields[f"field_{number}"] = (types[wanted], _field(name, required=name not in self.optional))
        answer = create_model("Answer", __config__=ConfigDict(strict=True, extra="ignore" if self.extra else "forbid"), **fields)

        def read(text: str) -> object:
            parse(text)  # pydantic's own parser takes NaN, and the last one of equal keys
            return answer.model_validate_json(text)

        return read


def _field(name: str, required: bool) -> Any:
    from pydantic import Field

    return Field(alias=name) if required else Field(None, alias=name)


def _accepts(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True
