"""What commands print with `--json`, against docs/reference/output.schema.json: every test that runs one checks it on the way."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

try:
    from jsonschema import Draft202012Validator
except ModuleNotFoundError:  # it comes with packages that the tests use, and none of ours needs it
    Draft202012Validator = None  # type: ignore[assignment, misc]

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/output.schema.json").read_text("utf-8"))
_CHOICES = {"adapters": "--fetch", "import": "--explain"}
"""Options with which a command answers something else."""
_OTHERS = ("--deepspeed", "--as")
"""Options with which it prints the configuration of another program."""


def check(arguments: Sequence[str], stdout: str) -> None:
    """Assert that STDOUT is what `engine ARGUMENTS` may print, if it was asked for JSON and printed any."""
    verb = next((word for word in arguments if word in SCHEMA["$defs"]), None)
    if "--json" not in arguments or verb is None or Draft202012Validator is None or not stdout or {*_OTHERS} & {*arguments}:
        return
    option = _CHOICES.get(verb)
    name = f"{verb} {option}" if option in arguments else verb
    for answer in map(json.loads, stdout.splitlines() if verb == "ask" else [stdout]):
        found = [f"{error.json_path}: {error.message[:300]}" for error in _validator(name).iter_errors(answer)]
        assert not found, f"engine {' '.join(arguments)} prints what output.schema.json does not describe: {found}"


@cache
def _validator(name: str) -> Any:
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": _closed(SCHEMA["$defs"])})


def _closed(value: Any) -> Any:
    """VALUE with objects that may have no key without a name: readers must allow for new ones, and the schema must have them all."""
    if isinstance(value, list):
        return [_closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    made = {key: _closed(one) for key, one in value.items()}
    return made | {"unevaluatedProperties": False} if isinstance(value.get("properties"), dict) and "$ref" not in value else made
