"""`engine import`: what it writes, shows and refuses."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support import commands

ROOT = Path(__file__).parents[3]


@pytest.fixture
def engine(workspace: Path):
    (workspace / "specs").mkdir()

    def engine(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = commands.engine(ROOT, "--workspace", str(workspace), *arguments)
        assert done.returncode == status, done.stderr
        return done

    return engine


def test_a_spec_is_written_and_the_commands_that_follow_are_named(engine, workspace):
    done = engine("import", str(workspace / "qlora-alpaca.yml"))
    assert (
        (workspace / "specs/qlora-alpaca.toml")
        .read_text("utf-8")
        .startswith("# Imported from qlora-alpaca.yml, a configuration of axolotl")
    )
    assert "engine pin specs/qlora-alpaca.toml" in done.stderr and "axolotl ignores 'colour'" in done.stderr
    assert "lora_dropout" in done.stdout and "training.method.lora_dropout" in done.stdout
    said = engine("check", status=1).stderr
    assert "model.revision must be a full commit hash" in said and "engine pin" in said
    assert "exists already" in engine("import", str(workspace / "qlora-alpaca.yml"), status=1).stderr
    engine("import", str(workspace / "qlora-alpaca.yml"), "--force")


def test_a_dry_run_shows_the_spec_and_writes_nothing(engine, workspace):
    done = engine("import", str(workspace / "chat.yml"), "--dry-run")
    assert "[tokenization.mask]" in done.stdout and "nothing was written" in done.stderr and not [*(workspace / "specs").iterdir()]


def test_the_account_as_json_has_every_key_of_the_tool(engine, workspace):
    found = json.loads(engine("import", str(workspace / "factory.yaml"), "--json").stdout)
    (one,) = found["imports"]
    assert found["files"] == ["specs/factory.toml"] and one["tool"] == "llamafactory" and len(one["keys"]) > 350
    by_key = {entry["key"]: entry for entry in one["keys"]}
    assert by_key["lora_rank"] == {
        "key": "lora_rank",
        "fate": "taken over",
        "value": "8",
        "file": "factory.yaml",
        "line": 5,
        "spec": ["training.method.r"],
        "why": "",
        "differs": False,
    }
    assert by_key["galore_rank"]["fate"] == "no meaning here" and by_key["galore_rank"]["line"] is None


def test_what_cannot_be_honoured_ends_with_status_1_and_writes_nothing(engine, workspace):
    said = engine("import", str(workspace / "rewards.yml"), str(workspace / "chat.yml"), status=1).stderr
    assert "rewards.yml:2:1" in said and "rl: training on judged answers (kto) cannot be honoured" in said
    assert not [*(workspace / "specs").iterdir()]
