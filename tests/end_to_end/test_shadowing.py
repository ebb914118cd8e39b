"""No file of a workspace is taken for a module: neither by `engine`, nor by a step, nor by the processes that a step starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from tests.end_to_end.conftest import Place
from tests.end_to_end.hostile import SAID, shadow, write

pytestmark = pytest.mark.slow

TOOLS = Path(sys.executable).parent
DEVICES = "\n[resources]\ndevices = 2\n"


def run(root: Path, *command: str) -> str:
    """What a command of the environment's folder says in ROOT, with Pythons that have imported nothing yet."""
    environment = {name: value for name, value in dvc_environment().items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run([TOOLS / command[0], *command[1:]], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2 if "plan" in command else 0), done.stdout + done.stderr
    assert SAID not in done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    root = write(tmp_path / "workspace", DEVICES)
    run(root.parent, "engine", "init", str(root))
    names = shadow(root)
    assert {"tokenizers", "torch", "transformers", "peft", "numpy", "pydantic", "yaml", "typer", "json", "stages"} <= names
    return root


def test_a_workspace_with_modules_of_every_name_builds_and_dvc_agrees(hostile: Path):
    run(hostile, "engine", "check")
    run(hostile, "engine", "build", "train-one")  # two processes, which torchrun starts
    run(hostile, "engine", "preview", "specs/one.toml", "a")
    run(hostile, "engine", "inspect", "one")
    assert "Running stage 'train" not in run(hostile, "dvc", "repro", "train-one")


def test_plain_dvc_builds_it_too(hostile: Path):
    run(hostile, "engine", "compile")
    run(hostile, "dvc", "repro", "predict-one")
    assert (hostile / "artifacts/predict-one").is_dir()
    run(hostile, "engine", "verify", "predict-one")


def test_what_python_is_asked_for_by_name_is_the_tools_own(hostile: Path):
    for module in ("engine", "stages", "stages.preview"):
        command = [sys.executable, "-P", "-m", "adapterbuild", module]
        done = subprocess.run(command, cwd=hostile, env=os.environ, capture_output=True, text=True, input="", check=False)
        assert SAID not in done.stdout + done.stderr, module


def test_python_m_engine_takes_no_library_from_the_workspace(tmp_path: Path):
    root = write(tmp_path / "workspace")
    for name in ("typer", "pydantic", "yaml"):
        (root / f"{name}.py").write_text(f"raise SystemExit('{SAID}: {name}')\n")
    run(root, "python", "-m", "engine", "check")


def test_a_checkout_that_is_its_own_workspace_runs_its_own_code_although_another_is_installed(place: Place):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "adapterbuild", "engine", "resolve"],
        cwd=place.root,
        env=dvc_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # the code of another folder would refuse this one
