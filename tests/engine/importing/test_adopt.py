"""`engine adopt`: an adapter that was trained elsewhere becomes an experiment, with a statement that it cannot be rebuilt."""

import json
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.core.digests import folder_digest
from tests.support import commands

ROOT = Path(__file__).parents[3]
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """An adapter of rank 4 as peft saves it, beside the workspace's files."""
    folder = tmp_path / "their-run/checkpoint-9"
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "base_model_name_or_path": "somebody/tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    (folder / "optimizer.pt").write_bytes(b"no part of it")
    write(folder, 16)
    return folder


def write(folder: Path, width: int) -> None:
    shapes = {f"{LAYER}.lora_A.weight": (4, width), f"{LAYER}.lora_B.weight": (16, 4)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / "adapter_model.safetensors")


def engine(here: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = commands.engine(ROOT, "--workspace", str(here), *arguments)
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture
def imported(here: Path) -> Path:
    engine(here, "import", str(here / "axolotl.yml"))
    return here


def test_an_adapter_becomes_an_experiment_with_the_tasks_and_the_evaluation_of_a_spec(imported, theirs):
    found = json.loads(engine(imported, "adopt", "specs/axolotl.toml", "--adapter", str(theirs), "--json").stdout)
    copy = imported / "adapters/axolotl-adopted"
    assert sorted(path.name for path in copy.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert found["digest"] == folder_digest(copy)
    written = tomllib.loads((imported / "specs/axolotl-adopted.toml").read_text("utf-8"))
    given = tomllib.loads((imported / "specs/axolotl.toml").read_text("utf-8"))
    assert written["model"] == {"path": "models/tiny", "adapter": "adapters/axolotl-adopted"} and "training" not in written
    assert written["tasks"] == given["tasks"] and written["evaluation"]["tasks"] == ["pairs"]
    statement = json.loads((imported / "adapters/axolotl-adopted.adopted.json").read_text("utf-8"))
    assert statement["predicate"]["trainedElsewhere"] is True and statement["predicate"]["reproducible"] is False
    assert statement["predicate"]["base"]["named"] == "somebody/tiny"
    assert statement["subject"][0]["digest"]["sha256"] == found["digest"].removeprefix("sha256:")
    plan = json.loads(engine(imported, "plan", "axolotl-adopted", "--json", status=2).stdout)
    names = [step["step"] for step in plan["steps"]] if "step" in plan["steps"][0] else [step["name"] for step in plan["steps"]]
    assert "evaluate-axolotl-adopted" in names and "train-axolotl-adopted" not in names


def test_an_adapter_that_does_not_fit_leaves_no_spec_behind(imported, theirs):
    write(theirs, 24)
    said = engine(imported, "adopt", "specs/axolotl.toml", "--adapter", str(theirs), status=1).stderr
    assert "does not fit the model" in said and not (imported / "specs/axolotl-adopted.toml").exists()


def test_weights_in_a_pickle_are_refused(imported, theirs):
    (theirs / "adapter_model.safetensors").rename(theirs / "adapter_model.bin")
    said = engine(imported, "adopt", "specs/axolotl.toml", "--adapter", str(theirs), status=1).stderr
    assert "adapter_model.safetensors is missing" in said and not (imported / "adapters").exists()
