"""Two processes under ZeRO-2: kill -9 costs no bits, and a step that is asked to stop exits with a code of its own."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file

from stages.process.job import PREEMPTED, Preempted
from stages.train import Checkpoints, GlobalBatch
from stages.train.body import run
from stages.train.distributed import launch, worker
from stages.train.methods import Lora
from stages.train.zero import Zero
from tests.stages.initialize.tiny import make_model
from tests.stages.train.groups import ended, forked, group, ready
from tests.stages.train.tiny import settings, training_job

pytestmark = pytest.mark.forks


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), hidden_size=16, layers=1)


CHOSEN = {"method": Lora(r=4, lora_dropout=0.1), "global_batch": GlobalBatch(rows=2), "checkpoints": Checkpoints(every_steps=1)}
SHARED = settings(**CHOSEN, devices=2, zero=Zero(stage=2))
SIZES = {"copy": 40, "name": 24}


def workers(job):
    """The two processes of a training, as torchrun starts them, in the folder where they find their work."""
    folder = job.scratch / launch.FOLDER
    launch._write_work(folder, SHARED, job, None)
    return group(lambda: worker.main(folder), 2, job.scratch / "log"), folder


def reached(job):
    return max((path.name for path in job.scratch.glob("checkpoints/step-*")), default="")


def wait_for(condition, log):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, model):
    """What two processes leave that nobody disturbs, and how many seconds they took."""
    ready()
    job, started = training_job(tmp_path_factory.mktemp("whole"), model, SIZES), time.monotonic()
    children, folder = workers(job)
    assert [ended(child) for child in children] == [0, 0], (job.scratch / "log").read_text()
    return folder, time.monotonic() - started


def outcome(folder):
    """The weights, and the values that are no measurements."""
    values = json.loads((folder / "result.json").read_text())
    return (folder / "result.safetensors").read_bytes(), {key: value for key, value in values.items() if not key.endswith("memory_bytes")}


@pytest.mark.slow
@pytest.mark.long
def test_killed_under_zero_2_on_two_processes_it_goes_on_with_the_same_bits(tmp_path, model, undisturbed):
    whole, seconds = undisturbed
    job, draw, killed, reaching = training_job(tmp_path, model, SIZES), random.Random(3), 0, 0
    while killed < 6 or not reaching:
        children, folder = workers(job)
        time.sleep(draw.uniform(0.2, 0.9) * seconds)
        for child in children:
            os.kill(child, signal.SIGKILL)
        if [ended(child) for child in children] == [-signal.SIGKILL] * 2:
            killed, reaching = killed + 1, reaching + bool(reached(job))
        elif (folder / "result.json").exists():  # done before its moment: the next one begins anew
            shutil.rmtree(job.scratch)
            job.scratch.mkdir()
    children, folder = workers(job)
    assert [ended(child) for child in children] == [0, 0], (job.scratch / "log").read_text()
    assert outcome(folder) == outcome(whole)


def start(job, log):
    def step():
        try:
            run(SHARED, job)
        except Preempted:
            return PREEMPTED
        return 0

    return forked(step, log)


def alive(job):
    return subprocess.run(["pgrep", "-f", str(job.scratch)], capture_output=True, text=True, check=False).stdout.split()


@pytest.mark.long
def test_the_step_itself_starts_its_processes_ends_with_them_and_leaves_the_adapter_of_one(tmp_path, model, undisturbed):
    """The whole chain of step, torchrun and processes: killed, asked to stop, and left alone."""
    job, log = training_job(tmp_path / "job", model, SIZES), tmp_path / "log"
    step = start(job, log)
    wait_for(lambda: len(alive(job)) >= 3, log)
    os.kill(step, signal.SIGKILL)
    assert ended(step) == -signal.SIGKILL
    wait_for(lambda: not alive(job), log)
    step = start(job, log)
    wait_for(lambda: reached(job), log)
    os.kill(step, signal.SIGTERM)
    assert ended(step) == PREEMPTED, log.read_text()
    assert not alive(job) and list(job.output.iterdir()) == []
    stopped = reached(job)
    assert ended(start(job, log)) == 0, log.read_text()
    assert outcome(job.scratch / launch.FOLDER) == outcome(undisturbed[0]) and stopped
    one = training_job(tmp_path / "one", model, SIZES)
    run(settings(**CHOSEN), one)
    mine, its = (load_file(folder / "adapter_model.safetensors") for folder in (job.output, one.output))
    assert all(torch.allclose(mine[name], its[name], rtol=1e-4, atol=1e-6) for name in its) and mine.keys() == its.keys()
    assert (job.output / "adapter_config.json").read_bytes() == (one.output / "adapter_config.json").read_bytes()
    assert log.with_suffix(".out").read_text() == "", "stdout is for data"
