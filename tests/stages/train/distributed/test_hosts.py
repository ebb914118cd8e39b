"""Several hosts, each a launch of its own on this machine: one adapter, whoever starts them and whatever disks they see."""

import os
import signal
import stat
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.core.errors import UserError
from stages.process.job import PREEMPTED, Preempted
from stages.train import Checkpoints, GlobalBatch, Validation
from stages.train.body import run
from stages.train.distributed import launch, worker
from stages.train.methods import Lora
from stages.train.zero import Zero
from tests.stages.initialize.tiny import make_model
from tests.stages.train.groups import apart, ended, forked, free_port, ready
from tests.stages.train.tiny import settings, training_job

pytestmark = pytest.mark.forks

CHOSEN = {
    "method": Lora(r=4, lora_dropout=0.1),
    "global_batch": GlobalBatch(rows=4),
    "validation": Validation(every_steps=4),
    "checkpoints": Checkpoints(every_steps=2),
}
TWO = settings(**CHOSEN, nodes=2, zero=Zero(stage=2))
SIZES = {"copy": 30, "name": 18}
STEPS = sum(SIZES.values()) // 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), hidden_size=16, layers=1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, model):
    """What one process makes of the same rows."""
    ready()
    job = training_job(tmp_path_factory.mktemp("alone"), model, SIZES)
    run(settings(**CHOSEN), job)
    return load_file(job.output / "adapter_model.safetensors")


@pytest.fixture
def jobs(tmp_path, model):
    """The same job in the workspaces of two hosts."""
    ready()
    return [training_job(tmp_path / host, model, SIZES) for host in ("first", "second")]


def near(found, one):
    return found.keys() == one.keys() and all(torch.allclose(found[name], one[name], rtol=1e-4, atol=1e-6) for name in one)


def processes(jobs, log, parameters=(TWO, TWO)):
    """The process of each host, as its torchrun starts it, in the workspace of that host; how each has ended."""
    works = []
    for job, chosen in zip(jobs, parameters, strict=True):
        folder = job.scratch / launch.FOLDER
        launch._write_work(folder, chosen, job, None)
        works.append(lambda folder=folder: worker.main(folder))
    return [ended(child) for child in apart(works, log)]


def left(job):
    """The names of the checkpoints of a host."""
    return sorted(path.name for path in job.scratch.glob("checkpoints/*"))


@pytest.mark.slow
def test_hosts_with_disks_of_their_own_go_on_from_the_first_ones_checkpoint_and_end_with_the_same(tmp_path, jobs, monkeypatch):
    log = tmp_path / "log"
    first, second = jobs
    monkeypatch.setattr("stages.train.loop.trainer.StopRequest.__bool__", lambda self: self._file is not None and _asks(self))
    assert processes(jobs, log) == [PREEMPTED, PREEMPTED], log.read_text()
    assert [bool(left(job)) for job in jobs] == [True, False], "checkpoints are the first process's"
    saved = left(first)
    # What another training of the second host has left must not be gone on from.
    (second.scratch / "checkpoints" / "step-00000099.safetensors").write_bytes(b"old")
    assert processes(jobs, log) == [0, 0], log.read_text()
    ours, theirs = (job.scratch / launch.FOLDER for job in jobs)
    for name in ("result.json", "result.safetensors"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    assert left(second) == saved, "what it went on from, and nothing else"
    result = launch._read_result(theirs)
    assert [point.step for point in result.curve] == list(range(1, STEPS + 1))


def _asks(request):
    """The second host is asked to stop at its first step, once."""
    asked = request._file.with_name("asked")
    if request._file.parts[-4] != "second" or asked.exists():
        return False
    asked.touch()
    return True


@pytest.mark.slow
def test_hosts_that_were_started_for_different_work_say_so(tmp_path, jobs):
    other = settings(**(CHOSEN | {"learning_rate": 1e-3}), nodes=2, zero=Zero(stage=2))
    assert processes(jobs, tmp_path / "log", (TWO, other)) == [1, 1]
    for job in jobs:
        with pytest.raises(UserError, match="started with different work") as caught:
            launch._raise_found(job.scratch / launch.FOLDER, 2)
        assert "same commit" in caught.value.problems[0].hint


@pytest.mark.slow
def test_a_host_whose_processes_have_ended_is_missed_by_the_others(tmp_path, jobs, monkeypatch):
    monkeypatch.setattr("stages.train.loop.trainer.StopRequest.__bool__", _falls)
    assert processes(jobs, tmp_path / "log") == [1, -signal.SIGKILL], (tmp_path / "log").read_text()
    with pytest.raises(UserError, match="another host have exited") as caught:
        launch._raise_found(jobs[0].scratch / launch.FOLDER, 2)
    assert "on all 2 hosts" in caught.value.problems[0].hint
    assert left(jobs[0]), "the last checkpoint is kept"


def _falls(request):
    """The second host dies at its third step."""
    request.calls = getattr(request, "calls", 0) + 1
    if request._file.parts[-4] == "second" and request.calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return False


def test_a_host_that_waits_in_vain_says_who_has_not_come(tmp_path, model, monkeypatch):
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "1", "ADAPTERBUILD_HOST_TIMEOUT": "1"}
    for name, value in meeting.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="could not connect") as caught:
        launch.train(TWO, training_job(tmp_path, model))
    assert "NODE_RANK" in caught.value.problems[0].hint


@pytest.mark.parametrize(
    ("name", "value"), [("NODE_RANK", "2"), ("NODE_RANK", "one"), ("MASTER_PORT", "http"), ("ADAPTERBUILD_HOST_TIMEOUT", "0")]
)
def test_variables_that_say_nothing_sensible_are_refused_before_any_work(tmp_path, monkeypatch, name, value):
    for key, given in ({"MASTER_ADDR": "127.0.0.1", "NODE_RANK": "0"} | {name: value}).items():
        monkeypatch.setenv(key, given)
    with pytest.raises(UserError, match=f"{name} must be an integer from .*, got '{value}'"):
        run(TWO, training_job(tmp_path, tmp_path / "no-model"))


def test_hosts_that_nobody_names_are_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match="the hosts are not known"):
        run(TWO, training_job(tmp_path, tmp_path / "no-model"))


def step(job, log, **variables):
    """The whole step in a process of its own, with torchrun and all, under VARIABLES."""

    def work():
        os.environ.update(variables)
        try:
            run(TWO, job)
        except Preempted:
            return PREEMPTED
        return 0

    return forked(work, log)


@pytest.mark.long
def test_the_same_step_started_on_each_of_two_hosts_makes_the_adapter_of_one_process(tmp_path, jobs, alone):
    """Started, stopped on one host only, and started again; each host has a workspace of its own and ends with the same adapter."""
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    codes = []
    for stopped in (True, False):
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        steps = [step(job, log, NODE_RANK=str(rank), **meeting) for rank, (job, log) in enumerate(zip(jobs, logs, strict=True))]
        if stopped:
            _wait(lambda: left(jobs[0]), logs[0])
            os.kill(steps[1], signal.SIGTERM)
        codes.append([ended(one) for one in steps])
    assert codes == [[PREEMPTED] * 2, [0, 0]], "".join(log.read_text() for log in logs)
    ours, theirs = ({path.name: path.read_bytes() for path in job.output.iterdir()} for job in jobs)
    assert ours == theirs and near(load_file(jobs[1].output / "adapter_model.safetensors"), alone)
    assert jobs[0].plot.read_bytes() == jobs[1].plot.read_bytes()


def _wait(condition, log):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.005)


SSH = """#!/bin/sh
# In place of ssh: the last argument is what another host would run, in a folder and with variables of its own.
for last; do :; done
exec env -i sh -c "$last"
"""

SRUN = """#!/bin/sh
# In place of srun: one task on each of two nodes.
shift 2
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" && wait $first
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("program", "text", "variable", "value"),
    [("ssh", SSH, "ADAPTERBUILD_HOSTFILE", "hosts"), ("srun", SRUN, "SLURM_JOB_NODELIST", "127.0.0.1,other")],
)
def test_hosts_that_are_started_from_the_first_one_see_its_workspace(tmp_path, model, alone, program, text, variable, value):
    tool = tmp_path / "bin" / program
    tool.parent.mkdir()
    tool.write_text(text)
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    if value == "hosts":
        (tmp_path / "hosts").write_text("127.0.0.1 slots=1\nother slots=1\n")
        value = str(tmp_path / "hosts")
    job, log = training_job(tmp_path / "job", model, SIZES), tmp_path / "log"
    variables = {"PATH": f"{tool.parent}:{os.environ['PATH']}", "PYTHONPATH": str(Path.cwd()), "MASTER_PORT": str(free_port())}
    assert ended(step(job, log, **variables, **{variable: value})) == 0, log.read_text()
    assert near(load_file(job.output / "adapter_model.safetensors"), alone)
