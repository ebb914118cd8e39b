"""The subset of JSON Schema for structured answers, converted to a pydantic type that parses and validates an answer."""

import json
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Annotated, Any, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import PydanticCustomError

from stages.rows.strict_json import parse

_STRICT = ConfigDict(strict=True, extra="forbid")
_OPEN = ConfigDict(strict=True, extra="allow")
_NOTES = {"title", "description", "default", "examples", "$schema", "$id", "$comment"}
_BOUNDS = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minItems": "min_length",
    "maxItems": "max_length",
}
_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_KEYWORDS: dict[str, set[str]] = {
    "string": {"minLength", "maxLength", "pattern"},
    "number": _NUMBERS,
    "integer": _NUMBERS,
    "boolean": set(),
    "null": set(),
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
}
_SIMPLE: dict[str, Any] = {"string": str, "number": float, "integer": int, "boolean": bool, "null": None}


class Unreadable(ValueError):
    """The schema uses something that this module cannot validate."""


class Structure:
    """A schema, and optionally the FIELD of an answer that becomes the completion; raises Unreadable for an unsupported schema."""

    def __init__(self, schema: Mapping[str, Any], field: str | None = None) -> None:
        self._field = field
        if field is not None and field not in schema.get("properties", {}):
            raise Unreadable(f"the schema has no property '{field}'")
        self._adapter: TypeAdapter[Any] = TypeAdapter(_Reader(schema).type_of(schema, ""))

    def read(self, text: str) -> tuple[str, str | None]:
        """The completion in TEXT and None, or an empty text and the validation errors."""
        try:
            value = parse(text)
            self._adapter.validate_json(text)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, fault['loc'])) or 'the answer'}: {fault['msg']}" for fault in error.errors(include_url=False)]
            return "", "; ".join(faults[:5])
        except (ValueError, RecursionError) as error:
            return "", f"the answer: Invalid JSON: {error}"
        found = value if self._field is None else value.get(self._field, "") if isinstance(value, dict) else ""
        return (found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)), None


class _Reader:
    """Converts the parts of one schema to types; `$ref` resolves into its `$defs`."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._definitions = schema.get("$defs", {})
        self._following: list[str] = []

    def type_of(self, schema: Mapping[str, Any], path: str) -> Any:
        """The type that accepts exactly what SCHEMA allows; PATH locates errors."""
        for keyword, read in self._readers().items():
            if keyword in schema:
                _refuse_others(schema, {keyword, "type", "$defs"}, path)
                return read(schema[keyword], path)
        names = schema.get("type")
        wanted = names if isinstance(names, tuple | list) else (names,)
        if not wanted or not all(name in _KEYWORDS for name in wanted):
            raise Unreadable(f"{path or 'the schema'} has no supported type: {', '.join(_KEYWORDS)}")
        _refuse_others(schema, {"type", "$defs"}.union(*(_KEYWORDS[name] for name in wanted)), path)
        return _union([self._of_one(name, _only(schema, name), path) for name in wanted])

    def _of_one(self, name: str, schema: Mapping[str, Any], path: str) -> Any:
        if name == "object":
            return self._object(schema, path)
        if name == "array":
            items: Any = self.type_of(schema["items"], f"{path}[]") if "items" in schema else Any
            return _bounded(list[items], schema)
        return _bounded(_SIMPLE[name], schema)

    def _readers(self) -> dict[str, Callable[[Any, str], Any]]:
        return {
            "$ref": self._reference,
            "anyOf": self._any_of,
            "enum": lambda values, path: _literal(values, path),
            "const": lambda value, path: _literal([value], path),
        }

    def _reference(self, target: str, path: str) -> Any:
        name = target.removeprefix("#/$defs/")
        if name not in self._definitions or target == name:
            raise Unreadable(f"{path or 'the schema'} refers to {target}, which is not in #/$defs/")
        if name in self._following:
            raise Unreadable(f"{path or 'the schema'} refers to itself through {target}: recursive schemas are not supported")
        self._following.append(name)
        found = self.type_of(self._definitions[name], path)
        self._following.pop()
        return found

    def _any_of(self, options: Any, path: str) -> Any:
        return _union([self.type_of(option, f"{path}.anyOf[{number}]") for number, option in enumerate(options)])

    def _object(self, schema: Mapping[str, Any], path: str) -> Any:
        properties, required = schema.get("properties", {}), schema.get("required", ())
        fields: dict[str, Any] = {}
        for number, (name, part) in enumerate(properties.items()):
            # Aliases: a property may have any name, a pydantic field may not.
            alias = Field(alias=name) if name in required else Field(default=None, alias=name)
            fields[f"field_{number}"] = (self.type_of(part, f"{path}.{name}".lstrip(".")), alias)
        if unknown := [name for name in required if name not in properties]:
            raise Unreadable(f"{path or 'the schema'} requires {', '.join(unknown)} without defining them in properties")
        more = schema.get("additionalProperties", True)
        if not isinstance(more, bool):
            raise Unreadable(f"{path or 'the schema'}: additionalProperties must be true or false")
        model: type[BaseModel] = create_model("Answer", __config__=_OPEN if more else _STRICT, **fields)
        return model


def _refuse_others(schema: Mapping[str, Any], known: set[str], path: str) -> None:
    """Raise Unreadable for keywords outside KNOWN: they would not be enforced."""
    if unknown := [keyword for keyword in schema if keyword not in known | _NOTES]:
        raise Unreadable(f"{path or 'the schema'} uses {', '.join(map(repr, unknown))}, which is not supported")


def _only(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The keywords of SCHEMA that apply to values of type NAME."""
    return {keyword: value for keyword, value in schema.items() if keyword in _KEYWORDS[name]}


def _bounded(base: Any, schema: Mapping[str, Any]) -> Any:
    bounds = {_BOUNDS[keyword]: schema[keyword] for keyword in _BOUNDS if keyword in schema}
    return Annotated[base, Field(**bounds)] if bounds else base


def _literal(values: Any, path: str) -> Any:
    if not values or not all(value is None or isinstance(value, str | int | bool) for value in values):
        raise Unreadable(f"{path or 'the schema'}: enum and const support strings, integers, true, false and null")
    allowed = list(values)

    def check(value: Any) -> Any:
        # By type too: in Python and pydantic, true equals 1 and 1.0.
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise PydanticCustomError("literal_error", "Input should be {allowed}", {"allowed": ", ".join(map(json.dumps, allowed))})
        return value

    return Annotated[Any, AfterValidator(check)]


def _union(types: list[Any]) -> Any:
    return reduce(lambda one, other: Union[one, other], [type(None) if part is None else part for part in types])  # noqa: UP007
