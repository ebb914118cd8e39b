"""Whatever the processes share, and however many there are, each step's loss and the trained weights are those of one process."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from stages.common.job import Job
from stages.train.body import run
from stages.train.methods import Full, Lora
from stages.train.zero import Zero
from tests.stages.train.tiny import settings, training_job

LORA = {"method": Lora(r=3, lora_dropout=0.1, target_modules=("query_key_value", "dense")), "weight_decay": 0.1}
ZEROS = {
    "0": Zero(),
    "1": Zero(stage=1),
    "2": Zero(stage=2),
    "3": Zero(stage=3),
    "2-offloaded": Zero(stage=2, offload_optimizer="cpu"),
    "3-offloaded": Zero(stage=3, offload_optimizer="cpu", offload_parameters="cpu"),
}


def launch(folder, cases, processes):
    """Run CASES in one group of PROCESSES; the outcome of each by name, with the weights where there are any."""
    folder.mkdir()
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-m", "stages.train.torchrun", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "tests.stages.train.group_program", str(folder / "cases.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-5000:]
    return {case["name"]: json.loads((folder / f"{case['name']}.json").read_text()) for case in cases}


def case(name, job, scratch, parameters, **more):
    return {
        "name": name,
        "parameters": parameters.model_dump(mode="json"),
        "scratch": str(scratch),
        "inputs": {role: str(path) for role, path in job.inputs.items()},
        **more,
    }


def alone(job, folder, **values):
    """Curve, weights and validation losses of one process without DeepSpeed."""
    from stages.train.division import Share
    from stages.train.work import matter, work

    (folder / "scratch").mkdir(parents=True)
    job = Job("alone", job.inputs, folder, None, folder / "scratch")
    parameters = settings(**values)
    found = matter(parameters, job)
    result = work(parameters, job, found, Share(), torch.device("cpu"))
    weights = {name: weight.detach() for name, weight in found.model.named_parameters() if weight.requires_grad}
    return result, weights


def distance(one, other):
    """Norm of the difference of all weights together, relative to their norm."""
    assert one.keys() == other.keys()
    parts = [((one[name] - other[name]).norm() ** 2, one[name].norm() ** 2) for name in one]
    return float((sum(part for part, _ in parts) / sum(whole for _, whole in parts)) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_every_stage_gives_the_losses_and_weights_of_one_process(tmp_path, falcon, processes):
    job = training_job(tmp_path / "job", falcon)
    methods = {"lora": LORA, "full": {"method": Full()}}
    cases = [
        case(f"{method}-{name}", job, tmp_path / f"{method}-{name}", settings(zero=zero, micro_batch=2, **values))
        for method, values in methods.items()
        for name, zero in ZEROS.items()
        if processes > 1 or zero.stage
    ]
    found = launch(tmp_path / "group", cases, processes)
    for method, values in methods.items():
        result, weights = alone(job, tmp_path / f"alone-{method}", **values)
        for name in (one["name"] for one in cases if one["name"].startswith(method)):
            losses = [loss for _, loss, _, _ in found[name]["curve"]]
            norms = [norm for _, _, _, norm in found[name]["curve"]]
            assert losses == pytest.approx([point.loss for point in result.curve], rel=1e-4), name
            assert norms == pytest.approx([point.grad_norm for point in result.curve], rel=1e-4), name
            assert found[name]["validation"] == pytest.approx(result.validation_loss, rel=1e-4), name
            assert distance(load_file(tmp_path / "group" / f"{name}.safetensors"), weights) < 1e-4, name


@pytest.mark.slow
def test_a_stopped_training_goes_on_at_the_same_row_under_another_number_of_processes_and_another_stage(tmp_path, falcon):
    job = training_job(tmp_path / "job", falcon)
    whole = [case(f"whole-{name}", job, tmp_path / f"whole-{name}", settings(zero=zero, **LORA)) for name, zero in ZEROS.items()]
    halves = [
        case(f"half-{name}", job, tmp_path / f"half-{name}", settings(zero=zero, **LORA), stop_after=2) for name, zero in ZEROS.items()
    ]
    rest = [case(f"rest-{name}", job, tmp_path / f"half-{name}", settings(zero=zero, **LORA)) for name, zero in ZEROS.items()]
    moved = case("moved", job, tmp_path / "moved", settings(zero=ZEROS["3"], **LORA), stop_after=2)
    found = launch(tmp_path / "two", [*whole, *halves, *rest, moved], 2)
    for name in ZEROS:
        assert found[f"half-{name}"] == "preempted"
        assert found[f"rest-{name}"] == found[f"whole-{name}"], f"zero {name} did not go on with the same bits"
        one, other = (load_file(tmp_path / "two" / f"{part}-{name}.safetensors") for part in ("whole", "rest"))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    result, weights = alone(job, tmp_path / "alone", **LORA)
    there = launch(tmp_path / "one", [case("moved", job, tmp_path / "moved", settings(zero=ZEROS["1"], **LORA))], 1)["moved"]
    assert [loss for _, loss, _, _ in there["curve"]] == pytest.approx([point.loss for point in result.curve], rel=1e-4)
    assert distance(load_file(tmp_path / "one" / "moved.safetensors"), weights) < 1e-4


@pytest.mark.slow
def test_the_step_itself_starts_its_processes_and_leaves_the_same_adapter(tmp_path, falcon, capfd):
    one, other = training_job(tmp_path / "one", falcon), training_job(tmp_path / "other", falcon)
    metrics, again = run(settings(**LORA), one), run(settings(devices=2, zero=Zero(stage=2), **LORA), other)
    assert again["validation_loss"] == pytest.approx(metrics["validation_loss"], rel=1e-4)
    assert {key: again[key] for key in ("steps", "rows", "tokens")} == {key: metrics[key] for key in ("steps", "rows", "tokens")}
    files = [load_file(job.output / "adapter_model.safetensors") for job in (one, other)]
    assert distance(*files) < 1e-4
    assert (one.output / "adapter_config.json").read_bytes() == (other.output / "adapter_config.json").read_bytes()
    assert capfd.readouterr().out == "", "stdout is for data"


def test_a_training_on_one_device_imports_no_deepspeed(tmp_path, falcon):
    script = (
        "import sys; from pathlib import Path; from stages.train.body import run; from stages.train.methods import Lora; "
        "from tests.stages.train.tiny import settings, training_job; "
        "run(settings(method=Lora(r=2)), training_job(Path(sys.argv[1]), Path(sys.argv[2]))); assert 'deepspeed' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(falcon)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
