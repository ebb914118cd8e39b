"""What commands print with `--json` has a version and a schema; `tests/support` compares every such output of all tests with it."""

import json
import re
from pathlib import Path

import pytest

from engine.cli import main as cli
from engine.cli.render import JSON_VERSION
from engine.plan.decide import SENTENCES
from tests.support.commands import engine
from tests.support.json_output import SCHEMA
from tests.support.toys import toy


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    (root / "specs").mkdir()
    (root / "specs/first.toml").write_text(toy(name="first"))
    (root / "a.jsonl").write_text('{"word": "x"}\n' * 9)
    return root


def test_every_command_with_json_output_has_a_schema_of_this_version_and_no_other_has():
    verbs = {name for name, verb in cli.command().commands.items() if any("--json" in parameter.opts for parameter in verb.params)}
    answers = {name: form for name, form in SCHEMA["$defs"].items() if "version" in form["properties"]}
    assert {name.partition(" ")[0] for name in answers} == verbs
    for name, form in answers.items():
        assert form["properties"]["version"]["const"] == JSON_VERSION and "version" in form["required"], name


def test_the_schema_knows_every_reason_of_a_plan():
    assert {one["const"] for one in SCHEMA["$defs"]["reason"]["properties"]["cause"]["oneOf"]} == SENTENCES.keys()


@pytest.mark.parametrize("command", ["plan", "why first", "show specs/first.toml", "adapters", "lock", "doctor"])
def test_what_a_command_prints_before_anything_is_built_is_what_the_schema_says(command: str, workspace: Path):
    pytest.importorskip("jsonschema")
    assert json.loads(engine(workspace, *command.split(), "--json").stdout)["version"] == JSON_VERSION


@pytest.mark.parametrize("option", ["--json", "--csv", "--markdown", ""])
def test_results_of_nothing_name_what_to_build(option: str, workspace: Path):
    done = engine(workspace, "results", *filter(None, [option]))
    assert done.returncode == 1 and not done.stdout
    assert re.search(r"not evaluated yet: specs/first.toml\n  hint: run: engine build specs/first.toml", done.stderr)
