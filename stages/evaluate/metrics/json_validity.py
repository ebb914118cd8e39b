"""How often the answer is valid JSON, and matches a schema, as validated by pydantic."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from engine.core.part import Part, recipe
from stages.evaluate.metrics.statistic import Prediction, Statistic, answer_of, proportion_of
from stages.rows.strict_json import parse

FieldType = Literal["string", "integer", "number", "boolean", "array", "object"]
"""The types of JSON Schema, except `null`."""


class JsonValidity(Part):
    """Share of the answers that are valid JSON and, with `fields`, share of those that are objects with these fields.

    Invalid numbers (`NaN`, `Infinity`, `1e999`) and duplicate keys make an answer invalid."""

    kind: Literal["json_validity"] = "json_validity"
    fields: dict[str, FieldType] = recipe({}, "Required fields of the object, with their JSON Schema types.")
    optional: tuple[str, ...] = recipe((), "Fields that may be absent.")
    extra: bool = recipe(False, "Whether other fields are allowed.")
    environment: ClassVar[tuple[str, ...]] = ("pydantic",)
    needs_reference: ClassVar[bool] = False

    def measure(self, predictions: Sequence[Prediction]) -> list[Statistic]:
        """`json_rate` and, with fields, `schema_rate`, 0 to 1; an answer that hit the length limit counts as invalid."""
        parsers = {"json_rate": parse, **({"schema_rate": self._object()} if self.fields else {})}
        return [proportion_of(name, [p.ended and _accepts(read, answer_of(p)) for p in predictions]) for name, read in parsers.items()]

    def _object(self) -> Callable[[str], object]:
        from pydantic import ConfigDict, create_model

        types = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
        # Aliases: the user's field may have a name that pydantic reserves.
        fields: dict[str, Any] = {}
        for number, (name, wanted) in enumerate(self.fields.items()):
            fields[f"field_{number}"] = (types[wanted], _field(name, required=name not in self.optional))
        answer = create_model("Answer", __config__=ConfigDict(strict=True, extra="ignore" if self.extra else "forbid"), **fields)

        def read(text: str) -> object:
            parse(text)  # pydantic's parser accepts NaN, and the last of duplicate keys
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
