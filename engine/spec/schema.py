"""The JSON Schema of a spec, for editors and the reference documentation."""

import json
from collections.abc import Callable
from typing import Any

from engine.spec.sections import Experiment

Schema = dict[str, Any]

_EXTENDS: Schema = {
    "title": "Extends",
    "description": "TOML files that this one builds on, relative to this file; later ones win over earlier ones, this file over all.",
    "type": "array",
    "items": {"type": "string", "minLength": 1},
    "default": [],
}


def schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a spec or of a part that specs extend: sections may be missing, unknown keys may not."""
    found = Experiment.model_json_schema()
    definitions = found.pop("$defs")
    for change in (_without_null, _strict_names, lambda node: _with_names(node, definitions)):
        _everywhere({"top": found, "definitions": definitions}, change)
    for definition in definitions.values():
        # A part may give a section half, and an extending spec the rest: only the key that tells a family's members apart must be there.
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
    """The schema as the text of a file; the same for the same sections."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _everywhere(node: Any, change: Callable[[Schema], None]) -> None:
    """Apply CHANGE to every object of a schema, the outer ones first."""
    if isinstance(node, dict):
        change(node)
        for item in node.values():
            _everywhere(item, change)
    elif isinstance(node, list):
        for item in node:
            _everywhere(item, change)


def _given(table: dict[str, Any]) -> dict[str, Any]:
    """TABLE without the keys that hold nothing, however deep."""
    return {key: _given(value) if isinstance(value, dict) else value for key, value in table.items() if value is not None}


def _without_null(node: Schema) -> None:
    """TOML has no null: a key that may be absent is just not required, and a default table does not name it."""
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
    """A table of the user's own names refuses a name of another form."""
    if "patternProperties" in node:
        node.setdefault("additionalProperties", False)


def _with_names(node: Schema, definitions: Schema) -> None:
    """A member of a family needs its `kind`, or is written by its name alone where nothing else is required."""
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
    # Members without required keys look alike once those are dropped, so any of them may fit.
    node["anyOf"] = node.pop("oneOf")
    if names:
        node["anyOf"].append({"type": "string", "enum": names})
