"""The JSON Schema agrees with the loader: what loads passes, what is refused for its form does not."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from engine.setup.init import init
from engine.setup.samples import TEMPLATES
from engine.spec.load import load_spec
from engine.spec.schema import schema, schema_text

ROOT = Path(__file__).parents[3]
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}


def passes(value: object, rule: dict, root: dict) -> bool:
    """Whether VALUE satisfies RULE; knows the keywords that our schema uses and refuses any other."""
    known = {"$ref", "type", "const", "enum", "anyOf", "oneOf", "properties", "required", "additionalProperties", "items", "prefixItems"}
    known |= {"minItems", "maxItems", "minProperties", "minLength", "maxLength", "pattern", "minimum", "maximum"}
    known |= {"exclusiveMinimum", "exclusiveMaximum", "propertyNames", "patternProperties"}
    assert set(rule) <= known | {"title", "description", "default", "resource", "$schema", "$defs"}, rule
    if "$ref" in rule and not passes(value, root["$defs"][rule["$ref"].rsplit("/", 1)[1]], root):
        return False
    if "type" in rule and (not isinstance(value, TYPES[rule["type"]]) or (isinstance(value, bool) and rule["type"] != "boolean")):
        return False
    if ("const" in rule and value != rule["const"]) or ("enum" in rule and value not in rule["enum"]):
        return False
    if "anyOf" in rule and not any(passes(value, item, root) for item in rule["anyOf"]):
        return False
    if "oneOf" in rule and sum(passes(value, item, root) for item in rule["oneOf"]) != 1:
        return False
    if isinstance(value, dict):
        return table_passes(value, rule, root)
    if isinstance(value, list):
        places = rule.get("prefixItems", [])
        items = [places[i] if i < len(places) else rule.get("items", {}) for i in range(len(value))]
        within = rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value))
        return within and all(passes(item, place, root) for item, place in zip(value, items, strict=True))
    if isinstance(value, str):
        within = rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value))
        return within and bool(re.search(rule.get("pattern", ""), value))
    low, high = rule.get("minimum", value), rule.get("maximum", value)
    return (
        low <= value <= high
        and not value <= rule.get("exclusiveMinimum", value - 1)
        and not value >= rule.get("exclusiveMaximum", value + 1)
    )


def table_passes(value: dict, rule: dict, root: dict) -> bool:
    properties, rest = rule.get("properties", {}), rule.get("additionalProperties", True)
    if set(rule.get("required", [])) - set(value) or len(value) < rule.get("minProperties", 0):
        return False
    if not all(passes(key, rule.get("propertyNames", {}), root) for key in value):
        return False
    patterns = rule.get("patternProperties", {}).items()
    rules = {key: [properties[key]] if key in properties else [r for p, r in patterns if re.search(p, key)] for key in value}
    others = [value[key] for key in value if not rules[key]]
    if rest is False and others:
        return False
    inner = all(passes(item, each, root) for key, item in value.items() for each in rules[key])
    return inner and (isinstance(rest, bool) or all(passes(item, rest, root) for item in others))


CHANGES = {
    "as it is": ("", ""),
    "table in place of a name": ('"lora"', '{ kind = "lora", r = 4, target_modules = ["q"] }'),
    "names in an array": ("[mixture]", '[evaluation]\nmetrics = ["rouge", { kind = "length" }]\n[mixture]'),
    "local model": ('name = "tiny"\narchitecture = { kind = "llama", hidden_size = 64 }', 'path = "models/a"'),
    "weights": ('["headline"]', '["headline"]\nsampler = { kind = "weights", weights = { headline = 1.5 } }'),
    "names where there is one member": (
        '"lora"',
        '"lora"\nschedule = "constant"\n[tasks.other]\nsource = { kind = "jsonl", path = "a.jsonl" }\nlayout = "auto"',
    ),
    "whole numbers for numbers": ('"lora"', '"lora"\nweight_decay = 1\nbetas = [0, 1]'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_loads_passes_the_schema(change, tmp_path, write, valid):
    text = valid.replace(*CHANGES[change], 1)
    load_spec(write(text), tmp_path)
    assert passes(tomllib.loads(text), schema(), schema())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"lora"', '"lorra"'),
        ('"lora"', '{ kind = "lora", r = 0 }'),
        ('"lora"', "{ r = 4 }"),
        ('"lora"', '{ kind = "full", r = 4 }'),
        ('{ kind = "gold", column = "title" }', '"gold"'),
        ("[training]", "[trainnig]"),
        ("[tasks.headline]", '[tasks."Head line"]'),
        ('name = "tiny"', 'name = "tiny"\npath = "x"'),
        ("64", "64.5"),
    ],
)
def test_what_is_refused_for_its_form_fails_the_schema(old, new, fails, valid):
    text = valid.replace(old, new, 1)
    assert fails(text)
    assert not passes(tomllib.loads(text), schema(), schema())


def test_a_part_may_lack_sections_and_may_extend_others():
    assert passes({"extends": ["parts/a.toml"], "training": {"method": "lora"}}, schema(), schema())
    assert not passes({"extends": "parts/a.toml"}, schema(), schema())
    assert "required" not in schema()


def test_families_list_the_members_that_need_no_more_than_their_name():
    names = [item["enum"] for item in schema()["$defs"]["Task"]["properties"]["teacher"]["anyOf"] if "enum" in item]
    assert names == [["local"]]  # it needs path or id, which a form cannot say; each other teacher needs a key of its own
    masks = schema()["$defs"]["Tokenization"]["properties"]["mask"]["anyOf"]
    assert [item["enum"] for item in masks if "enum" in item] == [["assistant", "completion", "delimited", "full"]]


def test_every_section_and_every_key_is_described():
    found = schema()
    tables = [found, *found["$defs"].values()]
    bare = [
        (table["title"], key)
        for table in tables
        for key, item in table["properties"].items()
        # pydantic leaves a description out where it is the very one of the table referred to
        if key != "kind" and not item.get("description") and "$ref" not in item
    ]
    assert bare == []
    assert all(table["description"] for table in tables)


TAPLO = shutil.which("taplo", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
"""It is among the packages of the tests."""


def test_taplo_accepts_the_specs_of_the_repository_and_of_templates_and_places_what_it_refuses(tmp_path):
    """The linter behind the TOML support of editors: https://taplo.tamasfe.dev"""
    written = ROOT / "docs/reference/spec.schema.json"
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[experiment]\nname = "a"\nseed = "x"\n')
    specs = [path for path in (ROOT / "specs").rglob("*.toml") if "seeds" not in path.parts]
    for template in TEMPLATES:
        init(tmp_path / "own", template=template)
    specs += (tmp_path / "own/specs").glob("*.toml")

    def lint(*paths: Path) -> subprocess.CompletedProcess[str]:
        command = [TAPLO, "lint", "--schema", written.as_uri(), *map(str, paths)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert len(specs) > 20 and lint(*specs).returncode == 0, lint(*specs).stderr
    refused = lint(wrong)
    assert refused.returncode == 1 and '"x" is not of type "integer"' in refused.stderr and "wrong.toml:3:8" in refused.stderr


def test_nothing_in_the_schema_is_null():
    assert '"null"' not in schema_text() and "null," not in schema_text()


def test_the_text_is_stable_and_ends_with_a_line_end():
    assert schema_text() == schema_text()
    assert schema_text().endswith("}\n") and not schema_text().endswith("\n\n")
    assert json.loads(schema_text()) == schema()
