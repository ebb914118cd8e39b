"""A process ends with its parent, also where that died first; parents and children are real ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from engine.build.executors import Local
from engine.core.errors import Location
from engine.core.graph import Step
from engine.core.part import Kind, Part
from stages.process.parent import PARENT

ROOT = Path(__file__).parents[3]

ORPHAN = """
import os, signal, sys, time
from stages.process.parent import PARENT, die_with_parent
first = sys.argv[1] == "first"
os.environ[PARENT] = str(os.getpid())
asked, ask = os.pipe()
if os.fork():
    if not first:
        os.read(asked, 1)
    os._exit(0)
while first and str(os.getppid()) == os.environ[PARENT]:
    time.sleep(0.001)
die_with_parent(signal.SIGKILL)
print("asked", PARENT in os.environ, flush=True)
os.write(ask, b"x")
time.sleep(300)
"""


@pytest.mark.parametrize(("dies", "said"), [("first", ""), ("later", "asked False\n")])
def test_a_process_ends_with_its_parent(dies: str, said: str):
    """The pipe is read to its end, which comes when the child has ended too; what it was told is not for its own children."""
    done = subprocess.run([sys.executable, "-c", ORPHAN, dies], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (said, "")


@pytest.mark.parametrize("alive", [True, False])
def test_a_step_begins_under_a_living_parent_alone(tmp_path: Path, alive: bool):
    """One that finds itself under another process than was named says nothing and does nothing."""
    environment = dvc_environment() | {"PYTHONPATH": str(ROOT), PARENT: str(os.getpid() if alive else os.getppid())}
    command = [sys.executable, "-m", "stages", "split", "x"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and ("unknown step 'x'" in done.stderr) == bool(done.stderr) == alive


def test_a_build_names_itself_to_its_steps(tmp_path: Path):
    say = [sys.executable, "-c", f"import os; print(os.environ['{PARENT}'])"]
    executor = Local(tmp_path, dvc_environment(), jobs=2, command=lambda step: say)
    executor.start(Step("x", Kind("say", "Say.", Part), Part(), {}, "Say.", Location("specs/x.toml", 1)))
    (finished,) = executor.wait()
    assert finished.log and finished.log.read_text() == f"{os.getpid()}\n"
