"""Whatever the processes share, and however many there are, each step's loss and the trained weights are those of one process."""

import pytest
import torch
from safetensors.torch import load_file

from stages.process.job import Job
from stages.train import GlobalBatch
from stages.train.methods import Full, Lora
from stages.train.objectives.distill import Distill
from stages.train.objectives.dpo import Dpo
from stages.train.objectives.kto import Kto
from stages.train.zero import Zero
from tests.stages.initialize.tiny import make_model
from tests.stages.train.groups import launch, ready
from tests.stages.train.matrix import METHODS, TRAINS
from tests.stages.train.methods_table import ZERO_COLUMNS, written
from tests.stages.train.objectives.pairs import pairs_job
from tests.stages.train.objectives.test_distill import student_job
from tests.stages.train.objectives.test_kto import judged_job, kto_job
from tests.stages.train.tiny import settings, training_job

pytestmark = pytest.mark.forks

LORA = {"method": Lora(r=3, lora_dropout=0.1, target_modules=("query_key_value", "dense")), "weight_decay": 0.1}
ZEROS = {
    "0": Zero(),
    "1": Zero(stage=1),
    "2": Zero(stage=2),
    "3": Zero(stage=3),
    "2-offloaded": Zero(stage=2, offload_optimizer="cpu"),
    "3-offloaded": Zero(stage=3, offload_optimizer="cpu", offload_parameters="cpu"),
}
STAGES = ("1", "2", "3", "3-offloaded")
TITLES = dict(zip(STAGES, ZERO_COLUMNS, strict=True))


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
    from stages.train.loop.division import Share
    from stages.train.loop.training import matter, work

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


def assert_same(found, weights, result, those):
    """A group's FOUND curve and validation, and its WEIGHTS, are those of one process."""
    for place in (1, 3):
        assert [point[place] for point in found["curve"]] == pytest.approx(
            [(point.step, point.loss, point.learning_rate, point.grad_norm)[place] for point in result.curve], rel=1e-4
        )
    assert found["validation"] == pytest.approx(result.validation_loss, rel=1e-4)
    assert distance(weights, those) < 1e-4


@pytest.mark.long
def test_every_method_under_every_stage_gives_the_losses_and_weights_of_one_process(tmp_path):
    """Frozen weights in 4 or 8 bits are partitioned as they are; what stands beside them learns the same."""
    job = training_job(tmp_path / "job", make_model(tmp_path / "model", hidden_size=16, layers=1))
    values = {"global_batch": GlobalBatch(rows=11)}
    pairs = [(method, stage) for method in METHODS for stage in STAGES]
    cases = [
        case(f"{method}-{stage}", job, tmp_path / method / stage, settings(method=METHODS[method], zero=ZEROS[stage], **values))
        for method, stage in pairs
    ]
    found = launch(tmp_path / "group", cases, 2)
    ones = {method: alone(job, tmp_path / f"alone-{method}", method=METHODS[method], **values) for method in METHODS}
    with written("zero") as outcomes:
        for method, stage in pairs:
            name = f"{method}-{stage}"
            assert_same(found[name], load_file(tmp_path / "group" / f"{name}.safetensors"), *ones[method])
            outcomes.setdefault(method, {})[TITLES[stage]] = TRAINS


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
            assert_same(found[name], load_file(tmp_path / "group" / f"{name}.safetensors"), result, weights)


OBJECTIVES = {
    "dpo": (pairs_job, Dpo(beta=0.5)),
    "kto": (kto_job, Kto(beta=0.5, desirable_weight=2.0)),
    "judged": (judged_job, Kto(beta=0.5)),
}
DISTILL = Distill(teacher="large", top_k=20, temperature=2.0, alpha=0.7)


@pytest.mark.slow
def test_pairs_judged_answers_and_a_teacher_teach_the_same_under_every_stage(tmp_path):
    """Five pairs or rows of a batch in micro-batches of two: one of two processes computes its last one only for the others."""
    small, large = (make_model(tmp_path / name, "llama", **sizes) for name, sizes in (("small", {}), ("large", {"layers": 3})))
    jobs = {name: (make(tmp_path / name, small), objective) for name, (make, objective) in OBJECTIVES.items()}
    jobs["distill"] = student_job(tmp_path / "distill", (small, large)), DISTILL
    values = {"method": Lora(r=4, lora_dropout=0.3), "global_batch": GlobalBatch(rows=5), "micro_batch": 2, "learning_rate": 1e-2}
    cases = [
        case(f"{name}-{stage}", job, tmp_path / f"{name}-{stage}", settings(objective=objective, zero=ZEROS[stage], **values))
        for name, (job, objective) in jobs.items()
        for stage in ("0", *STAGES)
    ]
    found = launch(tmp_path / "group", cases, 2)
    for name, (job, objective) in jobs.items():
        result, weights = alone(job, tmp_path / f"alone-{name}", objective=objective, **values)
        for stage in ("0", *STAGES):
            one = found[f"{name}-{stage}"]
            assert_same(one, load_file(tmp_path / "group" / f"{name}-{stage}.safetensors"), result, weights)
            # Whether one reward is above another is chance where both are 0, as in the first step.
            known = [number for number, measure in enumerate(result.curve[0].names) if measure != "accuracy"]
            for theirs, ours in zip(one["curve"], result.curve, strict=True):
                for number in known:
                    assert theirs[4][number] == pytest.approx(ours.measures[number], rel=1e-3, abs=1e-4), (name, stage, ours.names[number])


def nvme(disk, both):
    """Optimizer states in files, and the weights too where BOTH."""
    return Zero(stage=3, offload_optimizer="nvme", offload_parameters="nvme" if both else None, path=str(disk))


@pytest.mark.long
@pytest.mark.parametrize("both", [False, True], ids=["states", "states and weights"])
def test_what_is_offloaded_to_a_disk_gives_the_weights_of_one_process(tmp_path, both):
    """In one piece, and stopped in between; where DeepSpeed's access to disks is not compiled yet, that takes minutes."""
    ready()
    from deepspeed import ops

    if not ops.__compatible_ops__["async_io"]:
        pytest.skip("DeepSpeed cannot reach a disk here: it needs libaio with its headers, and a C++ compiler")
    # DeepSpeed leaves in memory what takes less than 1 MB: the norms of this model, not the group of its matrices.
    job, disk = training_job(tmp_path / "job", make_model(tmp_path / "model", hidden_size=192)), tmp_path / "disk"
    disk.mkdir()
    values = {"method": Full(), "weight_decay": 0.1}
    parameters = settings(zero=nvme(disk, both), **values)
    result, weights = alone(job, tmp_path / "alone", **values)
    for name, scratch, more in (("whole", "one", {}), ("half", "two", {"stop_after": 2}), ("rest", "two", {})):
        # Processes of their own, as a training has them.
        found = launch(tmp_path / f"group-{name}", [case(name, job, tmp_path / scratch, parameters, **more)], 2)[name]
        assert any(path.stat().st_size >= 2**20 for path in disk.rglob("*") if path.is_file()), "something lay on the disk"
        if more:
            assert found == "preempted"
        else:
            assert_same(found, load_file(tmp_path / f"group-{name}" / f"{name}.safetensors"), result, weights)


@pytest.mark.slow
@pytest.mark.long
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
    assert [loss for _, loss, *_ in there["curve"]] == pytest.approx([point.loss for point in result.curve], rel=1e-4)
    assert distance(load_file(tmp_path / "one" / "moved.safetensors"), weights) < 1e-4
