"""A build whose training is asked to stop exits with a code of its own, and goes on from there."""

import os
import signal
import subprocess
import sys
import time

import pytest

from engine.build.driver import dvc_environment
from stages.process.job import PREEMPTED
from tests.end_to_end.conftest import Place, spec
from tests.end_to_end.test_kills import steps_alive

pytestmark = pytest.mark.slow

LONG = """
[training]
method = "full"
steps = 20000
global_batch = { rows = 2 }
"""


@pytest.mark.long
def test_a_build_that_is_preempted_says_so_and_goes_on_from_the_checkpoint(place: Place):
    place.write("specs/long.toml", spec("long", "a", more=LONG))
    first, _ = _preempted(place)
    plan = place.run("engine", "plan", "train-long", check=False)
    assert f"resumes at step {first:,} of 20,000" in plan.stdout
    second, said = _preempted(place)
    assert 0 < first < second, "the second run went on where the first had stopped"
    assert f"resumes at step {first:,} of 20,000" in said


def _preempted(place: Place) -> tuple[int, str]:
    """Build until the training takes steps, and take the machine away as a scheduler does: the step that was saved, and what was said."""
    command = [sys.executable, "-m", "engine", "build", "train-long"]
    process = subprocess.Popen(command, cwd=place.root, env=dvc_environment(), stderr=subprocess.PIPE, text=True)
    live, deadline = place.root / "artifacts/live/train-long/metrics.json", time.monotonic() + 120
    while not live.exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    (step,) = steps_alive(place.root.resolve())
    os.kill(step, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == PREEMPTED, errors
    assert "preempted after saving its state: train-long" in errors and "Traceback" not in errors
    live.unlink()
    (folder,) = place.root.glob("artifacts/scratch/train-long-*/checkpoints")
    return max(int(path.stem.removeprefix("step-")) for path in folder.glob("step-*")), errors
