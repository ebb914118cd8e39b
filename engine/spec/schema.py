"""The JSON Schema of a spec, for editors and the reference documentation."""

import json
from collections.abc import Callable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from engine.core.part import named
from engine.spec.sections import Experiment

Schema = dict[str, Any]

_EXTENDS: Schema = {
    "title": "Extends",
    "description": "TOML files that this file extends, relative to it; later files override earlier ones, and this file overrides all.",
    "type": "array",
    "items": {"type": "string", "minLength": 1},
    "default": [],
}


_BY_NAME = "by name"
"""Marks what may be given by name alone, until its names are known."""


class _Generator(GenerateJsonSchema):
    """pydantic's, but it marks what a name may stand for: of a union, its discriminator tells the names, and else nothing does."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        found = super().function_before_schema(schema)
        return {"anyOf": [found], _BY_NAME: True} if schema["function"]["function"] is named.func and "$ref" in found else found


def schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a spec or of a part that specs extend: sections are optional, unknown keys are rejected."""
    found = Experiment.model_json_schema(schema_generator=_Generator)
    definitions = found.pop("$defs")
    for change in (_without_null, _strict_names, lambda node: _with_names(node, definitions)):
        _everywhere({"top": found, "definitions": definitions}, change)
    for definition in definitions.values():
        # A part may set some keys of a section and the extending spec the others, so only the discriminator of a family is required.
        definition["required"] = [name for name in definition.get("required", []) if name == "kind"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "adapterbuild spec",
        "description": found["description"],
        "type": "object",
        "additionalProperties": False,
        "properties": {"extends": _EXTENDS, **found["properties"]},
        "$defs": definitions,
    }


def schema_text() -> str:
    """The schema as the text of a file; deterministic."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _everywhere(node: Any, change: Callable[[Schema], None]) -> None:
    """Apply CHANGE to every object of a schema, outer objects first."""
    if isinstance(node, dict):
        change(node)
        for item in node.values():
            _everywhere(item, change)
    elif isinstance(node, list):
        for item in node:
            _everywhere(item, change)


def _given(table: dict[str, Any]) -> dict[str, Any]:
    """TABLE without keys whose value is None, recursively."""
    return {key: _given(value) if isinstance(value, dict) else value for key, value in table.items() if value is not None}


def _without_null(node: Schema) -> None:
    """TOML has no null: remove it from alternatives and defaults; optional keys are simply not required."""
    if isinstance(node.get("default"), dict):
        node["default"] = _given(node["default"])
    alternatives = node.get("anyOf")
    if not isinstance(alternatives, list) or {"type": "null"} not in alternatives:
        return
    rest = [item for item in alternatives if item != {"type": "null"}]
    del node["anyOf"]
    if node.get("default", ...) is None:
        del node["default"]
    node.update(rest[0] if len(rest) == 1 else {"anyOf": rest})


def _strict_names(node: Schema) -> None:
    """Tables with user-defined names reject invalid names."""
    if "patternProperties" in node:
        node.setdefault("additionalProperties", False)


def _with_names(node: Schema, definitions: Schema) -> None:
    """A member of a family requires `kind`; it may be given by name alone if it has no other required keys."""
    if node.pop(_BY_NAME, False):
        kind = definitions[node["anyOf"][0]["$ref"].rsplit("/", 1)[1]]["properties"]["kind"]
        node["anyOf"].append({"type": "string", "enum": kind.get("enum") or [kind["const"]]})
        return
    family = node.get("discriminator")
    if not isinstance(family, dict) or "mapping" not in family:
        return
    del node["discriminator"]  # OpenAPI's, unknown to JSON Schema
    key, names = family["propertyName"], []
    for name, reference in family["mapping"].items():
        member = definitions[reference.rsplit("/", 1)[1]]
        required = [item for item in member.get("required", []) if item != key]
        member["required"] = [key, *required]
        if not required:
            names.append(name)
    # Once required keys are dropped, a table can match several members, which oneOf would reject.
    node["anyOf"] = node.pop("oneOf")
    if names:
        node["anyOf"].append({"type": "string", "enum": names})
