"""The page of what `--json` prints, from docs/reference/output.schema.json: what the schema says is what the page says."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.markdown import GENERATED, cell, table

SCHEMA = Path(__file__).parents[1] / "docs/reference/output.schema.json"
_SHARED = ("reason", "token")
"""Definitions that several commands use: they have a table of their own."""


def page() -> str:
    """The page's text."""
    defined = json.loads(SCHEMA.read_text("utf-8"))["$defs"]
    commands = [name for name in defined if name not in _SHARED]
    parts = [
        "# JSON output",
        GENERATED,
        "With `--json` a command prints one JSON object to stdout (`engine ask` prints one for each row, each on a line), and notes and "
        "errors to stderr. An error prints no object: look at the [exit code](exit-codes.md) first.",
        f"The `version` is {defined['plan']['properties']['version']['const']}, for all commands. Keys may be added without a new version; "
        "a key that is removed, renamed, or means something else raises it, and the changelog says so.",
        "[output.schema.json](output.schema.json) is the JSON Schema (2020-12) of all commands: `$defs/plan` describes `engine plan`, and "
        "so on. This page is written from it, and the tests compare what the commands print with it.",
        table(("command", "answers"), [(f"[`engine {name}`](#{_anchor(name)})", cell(defined[name]["description"])) for name in commands]),
    ]
    for name in [*commands, *_SHARED]:
        title = f"{name.title()}s" if name in _SHARED else f"engine {name.replace('--', 'with ')}"
        parts += [f"## {title}", defined[name]["description"], table(("key", "type", "means"), [*_rows(defined[name], "")])]
    return "\n\n".join(parts) + "\n"


def _anchor(name: str) -> str:
    return f"engine-{name.replace('--', 'with-').replace(' ', '-')}"


def _rows(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    """A row for each key of an object and of the objects within; PATH is where it stands, with a dot at its end."""
    for key, value in schema.get("properties", {}).items():
        if key != "version":
            choices = "; ".join(f"`{one['const']}`: {one['description']}" for one in value.get("oneOf", ()))
            yield f"`{path}{key}`", cell(_kind(value)), cell(f"{value.get('description', '')} {choices}")
            yield from _within(value, path + key)


def _within(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    if "items" in value:
        yield from _within(value["items"], f"{path}[]")
    for one in value.get("anyOf", ()):
        yield from _within(one, path)
    yield from _rows(value, f"{path}.")


def _kind(value: Mapping[str, Any]) -> str:
    """The type of a value in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name}s)"
    if "anyOf" in value:
        return " or ".join(map(_kind, value["anyOf"]))
    if "items" in value:
        return f"array of {_kind(value['items'])}"
    if "oneOf" in value or "enum" in value:
        return "string"
    kind = value.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else kind
