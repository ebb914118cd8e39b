"""A process ends with its parent, also where that died first; parents and children are real ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from engine.build.executors.local import Local
from engine.core.errors import Location
from engine.core.graph import Step
from engine.core.part import Kind, Part
from stages.process.parent import PARENT, named

ROOT = Path(__file__).parents[3]

ORPHAN = """
import os, signal, sys, time
from stages.process.parent import PARENT, die_with_parent, named
first = sys.argv[1] == "first"
os.environ[PARENT] = named()
parent = str(os.getpid())
asked, ask = os.pipe()
if os.fork():
    if not first:
        os.read(asked, 1)
    os._exit(0)
while first and str(os.getppid()) == parent:
    time.sleep(0.001)
die_with_parent(signal.SIGKILL)
print("asked", PARENT in os.environ, flush=True)
os.write(ask, b"x")
time.sleep(300)
"""


@pytest.mark.parametrize(("dies", "said", "why"), [("first", "", "has ended, and so does this one"), ("later", "asked False\n", "")])
def test_a_process_ends_with_its_parent(dies: str, said: str, why: str):
    """The pipe is read to its end, which comes when the child has ended too; what it was told is not for its own children."""
    done = subprocess.run([sys.executable, "-c", ORPHAN, dies], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == said and why in done.stderr and bool(done.stderr) == bool(why) and "Traceback" not in done.stderr


def begun(folder: Path, name: str, *before: str) -> subprocess.CompletedProcess[str]:
    """A step of a workspace that has none, told that its parent is NAME, started by the command BEFORE."""
    environment = dvc_environment() | {"PYTHONPATH": str(ROOT), PARENT: name}
    command = [*before, sys.executable, "-m", "stages", "split", "x"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


BETWEEN = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"]
"""A launcher that stays between, as `srun` and shells do."""


def test_a_step_begins_under_a_living_parent_whoever_stands_between(tmp_path: Path):
    pid, began, here = named().split(" ", 2)
    elsewhere = f"{pid} 1 another-host pid:[1]"
    for name in (f"{pid} {began} {here}", elsewhere, "", "nonsense", pid):
        for before in ([], BETWEEN):
            done = begun(tmp_path, name, *before)
            assert done.returncode == 1 and "unknown step 'x'" in done.stderr, (name, done.stderr)


def test_a_step_whose_parent_has_ended_says_so_and_does_nothing(tmp_path: Path):
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    here = named().split(" ", 2)[2]
    gone.wait()
    # The second has an id that is given again.
    for name in (f"{gone.pid} 12345 {here}", f"{os.getpid()} 12345 {here}"):
        done = begun(tmp_path, name, *BETWEEN)
        assert done.returncode == 1 and "unknown step" not in done.stderr
        assert f"process {name.split()[0]}, which started this one, has ended" in done.stderr and PARENT in done.stderr


def test_a_build_names_itself_to_its_steps(tmp_path: Path):
    say = [sys.executable, "-c", f"import os; print(os.environ['{PARENT}'])"]
    executor = Local(tmp_path, dvc_environment(), jobs=2, command=lambda step: say)
    executor.start(Step("x", Kind("say", "Say.", Part), Part(), {}, "Say.", Location("specs/x.toml", 1)), {})
    (finished,) = executor.wait()
    assert finished.log and finished.log.read_text() == f"{named()}\n"
