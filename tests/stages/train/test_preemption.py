"""A step that is asked to stop exits with a code of its own and goes on from there; kill -9 under ZeRO-2 costs no bits."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from engine.build import dvc_environment
from stages.common.job import PREEMPTED
from tests.stages.initialize.tiny import contents
from tests.stages.train.tiny import training_job

SPEC = """\
[experiment]
name = "toy"

[model]
name = "tiny"
architecture = { kind = "gpt2", hidden_size = 16, layers = 1, heads = 2, max_length = 128 }
tokenizer = { vocab_size = 300 }

[tasks.answer]
source = { kind = "jsonl", path = "data/rows.jsonl" }
prompts = ["Say {{ question }}:"]
teacher = { kind = "gold", column = "answer" }

[mixture]
tasks = ["answer"]

[training]
method = "full"
steps = 20000
global_batch = { rows = 2 }

[resources]
threads = 1
"""


@pytest.mark.slow
def test_a_build_that_is_preempted_says_so_and_goes_on_from_the_checkpoint(tmp_path):
    for folder in ("specs", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "specs/toy.toml").write_text(SPEC)
    rows = [f'{{"question": "q{number}", "answer": "a{number}"}}\n' for number in range(60)]
    (tmp_path / "data/rows.jsonl").write_text("".join(rows))
    for verb in (["init", "."], ["build", "tokenize-answer-tiny", "mix-toy"]):
        subprocess.run([sys.executable, "-m", "engine", *verb], cwd=tmp_path, env=dvc_environment(), check=True, capture_output=True)
    command = [sys.executable, "-m", "engine", "build", "train-toy"]
    reached = []
    for _ in range(2):
        process = subprocess.Popen(command, cwd=tmp_path, env=dvc_environment(), stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not (steps := _steps_alive(tmp_path)) or not list(tmp_path.glob("artifacts/live/train-toy/metrics.json")):
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(steps[0], signal.SIGTERM)  # a scheduler takes the machine back
        _, errors = process.communicate(timeout=120)
        assert process.returncode == PREEMPTED, errors
        assert "train-toy was asked to stop and has saved its state" in errors and "Traceback" not in errors
        (tmp_path / "artifacts/live/train-toy/metrics.json").unlink()
        (folder,) = tmp_path.glob("artifacts/scratch/train-toy-*/checkpoints")
        reached.append(max(int(path.stem.removeprefix("step-")) for path in folder.glob("step-*")))
    assert 0 < reached[0] < reached[1], "the second run went on where the first had stopped"


def _steps_alive(root):
    found = subprocess.run(["pgrep", "-f", "stages train train-toy"], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found if os.path.realpath(f"/proc/{pid}/cwd") == str(root.resolve())]


SCRIPT = """
import sys, signal
from pathlib import Path
from stages.common.job import Job, Preempted
from stages.runner import _die_with_parent
from stages.train import Checkpoints, GlobalBatch
from stages.train.body import run
from stages.train.methods import Lora
from stages.train.zero import Zero
from tests.stages.train.tiny import settings
_die_with_parent()
folder = Path(sys.argv[1])
inputs = dict(argument.split("=", 1) for argument in sys.argv[2:])
job = Job("step", {role: Path(path) for role, path in inputs.items()}, folder / "output", folder / "plot.csv", folder / "scratch")
chosen = {"method": Lora(r=4, lora_dropout=0.1), "devices": 2, "zero": Zero(stage=2)}
try:
    run(settings(**chosen, global_batch=GlobalBatch(rows=2), checkpoints=Checkpoints(every_steps=1)), job)
except Preempted:
    sys.exit(75)
"""


def _start(job):
    folder = job.output.parent
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), *(f"{role}={path}" for role, path in job.inputs.items())],
        stderr=(folder / "log").open("a"),
    )


def _checkpoints(job):
    return len(list(job.scratch.glob("checkpoints/step-*")))


def _workers(job):
    found = subprocess.run(["pgrep", "-f", str(job.scratch)], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found]


@pytest.mark.slow
def test_killed_under_zero_2_on_two_processes_it_leaves_the_same_bytes_and_no_process(tmp_path, falcon):
    sizes = {"copy": 40, "name": 24}
    whole, job = training_job(tmp_path / "whole", falcon, sizes), training_job(tmp_path / "job", falcon, sizes)
    assert _start(whole).wait(240) == 0, (tmp_path / "whole/job/log").read_text()
    draw = random.Random(3)
    for last in (signal.SIGKILL, signal.SIGTERM):
        process, deadline = _start(job), time.monotonic() + 120
        before = max((path.name for path in job.scratch.glob("checkpoints/step-*")), default="")
        while max((path.name for path in job.scratch.glob("checkpoints/step-*")), default="") <= before:
            assert time.monotonic() < deadline and process.poll() is None, (tmp_path / "job/job/log").read_text()
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.2))
        process.send_signal(last)
        assert process.wait(60) == (-signal.SIGKILL if last == signal.SIGKILL else PREEMPTED)
        deadline = time.monotonic() + 20
        while _workers(job):
            assert time.monotonic() < deadline, "a process lives on"
            time.sleep(0.05)
    assert _checkpoints(job)
    assert _start(job).wait(240) == 0, (tmp_path / "job/job/log").read_text()
    assert contents(job.output) == contents(whole.output)
    assert job.plot.read_bytes() == whole.plot.read_bytes()
