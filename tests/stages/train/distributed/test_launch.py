"""The commands that start processes on devices and hosts, and what is refused before they start."""

import sys

import pytest

from engine.core.errors import UserError
from stages.models.folders import prepare_process
from stages.process.starting import entry
from stages.train import Parameters
from stages.train.body import run
from stages.train.distributed.hosts import first_of_slurm
from stages.train.distributed.launch import commands, is_needed
from stages.train.loop.refusals import refuse_impossible
from stages.train.zero import Zero
from tests.stages.generate.tiny_models import llama
from tests.stages.train.tiny import settings, training_job

TWO = {"method": "full", "nodes": 2, "devices": 4}
WORKER = [entry(), "stages.train.distributed.worker", "/scratch/work"]


def started(tmp_path, **environment):
    from pathlib import Path

    return commands(Parameters(**TWO), Path("/scratch/work"), environment, tmp_path)


def test_one_device_without_zero_takes_no_other_process():
    assert not is_needed(Parameters(method="full"))
    for values in ({"devices": 2}, {"nodes": 2}, {"zero": Zero(stage=1)}):
        assert is_needed(Parameters(method="full", **values))


def test_one_host_meets_at_an_address_of_its_own(tmp_path):
    (command,) = commands(Parameters(method="full", devices=2), tmp_path, {}, tmp_path)
    assert command[:4] == [sys.executable, "-P", entry(), "stages.train.distributed.torchrun"]
    assert {"--nproc-per-node=2", "--standalone"} <= set(command) and command[-1] == str(tmp_path)


def test_a_scheduler_that_starts_every_host_gives_address_and_rank(tmp_path):
    (command,) = started(tmp_path, MASTER_ADDR="first", MASTER_PORT="777", NODE_RANK="1")
    assert {"--nnodes=2", "--node-rank=1", "--master-addr=first", "--master-port=777"} <= set(command) and command[-3:] == WORKER


def test_slurm_starts_one_torchrun_a_host(tmp_path):
    (command,) = started(tmp_path, SLURM_JOB_NODELIST="gpu[003-004]")
    assert command[:3] == ["srun", "--nodes=2", "--ntasks-per-node=1"]
    assert "--master-addr=gpu003" in command and not any("--node-rank" in part for part in command)


@pytest.mark.parametrize(
    ("names", "first"), [("gpu[003-006,9],big1", "gpu003"), ("gpu7", "gpu7"), ("a1,a2", "a1"), ("node-a[1,3]", "node-a1")]
)
def test_the_first_host_of_slurms_list(names, first):
    assert first_of_slurm(names) == first


def test_a_hostfile_names_the_others_that_are_started_from_here(tmp_path):
    (tmp_path / "hosts").write_text("# ours\nfirst slots=4\nsecond slots=4\n")
    here, there = started(tmp_path, ADAPTERBUILD_HOSTFILE=str(tmp_path / "hosts"), PATH="/a b")
    assert "--node-rank=0" in here and "--master-addr=first" in here
    assert there[0] == "ssh" and "second" in there and "--node-rank=1" in there[-1] and "'PATH=/a b'" in there[-1]


def test_hosts_that_nobody_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="the hosts are not known") as caught:
        started(tmp_path)
    assert "ADAPTERBUILD_HOSTFILE" in caught.value.problems[0].hint
    (tmp_path / "hosts").write_text("first\n")
    with pytest.raises(UserError, match="lists 1 hosts"):
        started(tmp_path, ADAPTERBUILD_HOSTFILE=str(tmp_path / "hosts"))
    with pytest.raises(UserError, match="cannot read the hostfile"):
        started(tmp_path, ADAPTERBUILD_HOSTFILE=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("values", "what", "hint"),
    [
        ({"devices": 4096}, "resources.devices is 4096", "or less"),
        ({"zero": Zero(stage=3, offload_optimizer="nvme", path="/no/such/disk")}, "/no/such/disk, which is not a folder", "offload to cpu"),
        ({"report_to": ("wandb",)}, "wandb, which is not installed", "pip install wandb"),
        ({"precision": "float16"}, "float16 needs a GPU", "bfloat16"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_before_any_work(tmp_path, values, what, hint):
    with pytest.raises(UserError, match=what) as caught:
        run(settings(**values), training_job(tmp_path, llama(tmp_path / "model")))
    assert hint in caught.value.problems[0].hint


NVME = settings(zero=Zero(stage=3, offload_parameters="nvme", path="."))


@pytest.fixture
def compatible():
    """What DeepSpeed can compile on this machine, put back afterwards."""
    prepare_process(1)
    from deepspeed import ops

    before = dict(ops.__compatible_ops__)
    yield ops.__compatible_ops__
    ops.__compatible_ops__.update(before)


def test_what_it_can_do_is_not_refused(compatible):
    compatible["async_io"] = True
    refuse_impossible(NVME)


def test_a_disk_that_deepspeed_cannot_reach_is_refused(compatible):
    compatible["async_io"] = False
    with pytest.raises(UserError, match="libaio") as caught:
        refuse_impossible(NVME)
    assert "offload to cpu" in caught.value.problems[0].hint
