"""Killed at any moment and run again, a training leaves the very bytes of one that nobody disturbed."""

import json
import os
import random
import shutil
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.core.errors import UserError
from stages.process.job import Preempted
from stages.process.saved import CHECKPOINTS, saved
from stages.train import Checkpoints as Section
from stages.train import GlobalBatch, Schedule, Validation
from stages.train.body import run
from stages.train.distributed.processes import Replicated
from stages.train.loop import checkpoints as module
from stages.train.loop import timing
from stages.train.loop.checkpoints import Checkpoints, Progress, Validated, refuse_no_space
from stages.train.loop.trainer import Trainer
from stages.train.loop.validation import Validator
from stages.train.methods import Full, Lora
from stages.train.optimizers import Adafactor, AdamW8bit
from tests.stages.initialize.tiny import contents
from tests.stages.train.groups import ended, forked
from tests.stages.train.tiny import settings, training_job

pytestmark = pytest.mark.forks

SIZES = {"copy": 40, "name": 24}
CHOSEN = {"method": Lora(r=4, lora_dropout=0.1), "global_batch": GlobalBatch(rows=4), "checkpoints": Section(every_steps=1)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, falcon):
    """The outcome of an undisturbed training, and the seconds that it took in a child."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = training_job(folder, falcon, SIZES)
    started = time.monotonic()
    assert ended(forked(lambda: run(settings(**CHOSEN), job))) == 0
    return contents(job.output), job.plot.read_bytes(), time.monotonic() - started


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, falcon, undisturbed):
    output, plot, seconds = undisturbed
    draw = random.Random(6)
    job = training_job(tmp_path, falcon, SIZES)
    killed = 0
    while killed < 10:
        child = forked(lambda: run(settings(**CHOSEN), job))
        time.sleep(draw.uniform(0.05, 0.9) * seconds)
        os.kill(child, signal.SIGKILL)
        if ended(child) == -signal.SIGKILL:
            killed += 1
        else:  # it was done before its moment: the next one begins anew
            shutil.rmtree(job.scratch)
            job.scratch.mkdir()
        for path in job.output.iterdir():
            path.unlink()  # the runner gives each run an empty folder
    assert ended(forked(lambda: run(settings(**CHOSEN), job))) == 0
    assert (contents(job.output), job.plot.read_bytes()) == (output, plot)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["save_file", "_force", "replace", "_force again", "unlink"])
def test_killed_within_the_writing_of_a_checkpoint(tmp_path, falcon, undisturbed, moment, monkeypatch):
    """The process dies at one point of the third checkpoint: in the half-written file, before or after it has its name."""
    output, plot, _ = undisturbed
    job = training_job(tmp_path, falcon, SIZES)
    counts = {"save_file": 3, "_force": 5, "replace": 3, "_force again": 6, "unlink": 1}
    left = counts[moment]

    def dying(original, half=None):
        def function(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                if half:
                    half(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return function

    def half_a_file(tensors, path, metadata):
        module_save(tensors, path, metadata)
        os.truncate(path, path.stat().st_size // 2)

    module_save = module.save_file

    def work():
        from pathlib import Path

        if moment == "save_file":
            module.save_file = dying(module_save, half_a_file)
        elif moment.startswith("_force"):
            module._force = dying(module._force)
        else:
            setattr(Path, moment, dying(getattr(Path, moment)))
        run(settings(**CHOSEN), job)

    assert ended(forked(work)) == -signal.SIGKILL
    assert list((job.scratch / "checkpoints").glob("step-*"))
    assert ended(forked(lambda: run(settings(**CHOSEN), job))) == 0
    assert (contents(job.output), job.plot.read_bytes()) == (output, plot)
    assert not list((job.scratch / "checkpoints").glob(".*")), "what the dead process left is gone"


def stop_after(monkeypatch, steps):
    from stages.train.loop.guards import StopRequest

    calls = iter(range(1, 10**6))
    monkeypatch.setattr(StopRequest, "__bool__", lambda self: next(calls) == steps)


@pytest.mark.parametrize("values", [{"method": Full()}, {"optimizer": AdamW8bit()}, {"optimizer": Adafactor()}, {"precision": "bfloat16"}])
def test_a_stopped_training_goes_on_with_the_same_bits(tmp_path, falcon, monkeypatch, values):
    chosen = settings(**(CHOSEN | values))
    whole, job = training_job(tmp_path / "whole", falcon, SIZES), training_job(tmp_path / "job", falcon, SIZES)
    expected = run(chosen, whole)
    stop_after(monkeypatch, 5)
    with pytest.raises(Preempted, match="step 5 of 16 is saved"):
        run(chosen, job)
    found = run(chosen, job)
    assert contents(job.output) == contents(whole.output) and job.plot.read_bytes() == whole.plot.read_bytes()
    assert {key: value for key, value in found.items() if key != "_measured"} == {
        key: value for key, value in expected.items() if key != "_measured"
    }


def changed(job, **values):
    """The newest checkpoint of JOB, with other values of its progress; None takes one out, as if an older version had written it."""
    path = max((job.scratch / CHECKPOINTS).glob("step-*"))
    with safe_open(path, "pt") as file:
        state, tensors = json.loads(file.metadata()["state"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state["progress"] = {name: value for name, value in (state["progress"] | values).items() if value is not None}
    save_file(tensors, path, {"state": json.dumps(state)})


def test_the_time_of_a_training_is_that_of_all_its_attempts(tmp_path, falcon, monkeypatch):
    chosen, job = settings(**CHOSEN), training_job(tmp_path, falcon, SIZES)
    assert saved(job.scratch) is None
    stop_after(monkeypatch, 5)
    with pytest.raises(Preempted):
        run(chosen, job)
    assert str(saved(job.scratch)) == "resumes at step 5 of 16" and saved(job.scratch).seconds > 0
    changed(job, seconds=None, steps=None)
    assert str(saved(job.scratch)) == "resumes at step 5" and saved(job.scratch).seconds == 0
    stop_after(monkeypatch, 2)
    with pytest.raises(Preempted):
        run(chosen, job)
    assert (saved(job.scratch).step, saved(job.scratch).steps) == (7, 16)
    changed(job, seconds=1000.0)
    stop_after(monkeypatch, 2)
    with pytest.raises(Preempted):
        run(chosen, job)
    assert saved(job.scratch).seconds > 1000
    changed(job, seconds=2000.0)
    found = run(chosen, job)
    measured = found["_measured"]
    assert measured["training_seconds"] > measured["earlier_seconds"] == 2000
    assert measured["tokens_per_second"] == round(found["tokens"] / measured["training_seconds"], 1)


def test_early_stopping_and_the_best_weights_survive_a_stop(tmp_path, falcon, monkeypatch):
    chosen = settings(**CHOSEN, validation=Validation(every_steps=2, patience=2), learning_rate=0.3)
    whole, job = training_job(tmp_path / "whole", falcon, SIZES), training_job(tmp_path / "job", falcon, SIZES)
    expected = run(chosen, whole)
    assert expected["steps"] < 16 and expected["best_step"] == expected["steps"] - 4, "two validations without a better loss end it"
    assert expected["rows"] == 4 * expected["steps"]
    stop_after(monkeypatch, expected["best_step"] + 1)
    with pytest.raises(Preempted):
        run(chosen, job)
    found = run(chosen, job)
    assert contents(job.output) == contents(whole.output)
    assert found["validation_loss"] == expected["validation_loss"]


def test_the_best_weights_are_those_that_the_validation_saw(tmp_path, falcon):
    from stages.models.folders import load_adapter, load_model
    from stages.tokens.files import Tokens
    from stages.train.loop.data import Rows
    from tests.stages.train.tiny import mean_loss

    # The learning rate rises from nothing to what wrecks any model: the first validations are the best on every processor.
    wrecking = {"learning_rate": 1.0, "schedule": Schedule(kind="constant", warmup_ratio=1.0), "stop_on_divergence": False}
    job = training_job(tmp_path, falcon, SIZES)
    metrics = run(settings(**CHOSEN, validation=Validation(every_steps=2), **wrecking), job)
    assert metrics["best_step"] < metrics["steps"] == 16
    model = load_adapter(load_model(falcon), job.output)
    for weight in model.parameters():
        weight.requires_grad_(True)
    for task, loss in metrics["validation_loss"].items():
        assert mean_loss(model, Rows.all_of(Tokens.open(job.inputs[f"validation/{task}"]))) == pytest.approx(loss, rel=1e-4)


WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
STATES = {"a": {"exp_avg": torch.full((2, 3), 0.5), "step": torch.tensor(3.0), "count": 3}, "b": {"exp_avg": torch.zeros(2), "none": None}}


def test_what_was_saved_is_read_again_and_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, "me")
    for step in range(1, 5):
        progress = Progress(step, 4 * step, [[0.1 * step, 1e-3, 1 / 3]] * step, [Validated(step, 0.25, {"a": 0.25})], 2)
        checkpoints.save(progress, WEIGHTS, STATES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003.safetensors", "step-00000004.safetensors"]
    found = checkpoints.latest()
    assert found.progress == progress
    assert found.weights.keys() == WEIGHTS.keys() and all(torch.equal(found.weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert found.states["a"]["count"] == 3 and found.states["b"]["none"] is None
    assert torch.equal(found.states["a"]["exp_avg"], STATES["a"]["exp_avg"]) and found.states["a"]["step"] == 3


def test_a_checkpoint_that_a_disk_has_lost_half_of_gives_way_to_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path, "me")
    for step in (1, 2):
        checkpoints.save(Progress(step), WEIGHTS, STATES)
    os.truncate(tmp_path / "step-00000002.safetensors", 100)
    assert checkpoints.latest().progress.step == 1


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, falcon, monkeypatch):
    job = training_job(tmp_path, falcon)
    Checkpoints(job.scratch / "checkpoints", "train-other-0123456789ab").save(Progress(1), WEIGHTS, STATES)
    with pytest.raises(UserError, match="a checkpoint of another recipe") as caught:
        run(settings(), job)
    assert "remove" in caught.value.problems[0].hint


def test_a_disk_without_room_for_checkpoints_is_refused_before_the_first_step(tmp_path):
    refuse_no_space(tmp_path, 1000)
    with pytest.raises(UserError, match="checkpoints need") as caught:
        refuse_no_space(tmp_path, 10**18)
    assert "engine gc" in caught.value.problems[0].hint


def test_a_checkpoint_is_due_after_so_many_steps_or_minutes_since_the_last(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(timing.time, "monotonic", lambda: now)
    due = timing.Due(Section(every_minutes=10, every_steps=50), step=7)
    assert not due.now(56) and due.now(57), "by steps, counted from where the training went on"
    now += 599
    assert not due.now(8)
    now += 1
    assert due.now(8), "by minutes"
    due.saved(8)
    assert not due.now(9) and not due.now(57) and due.now(58)
    assert not timing.Due(Section(every_minutes=10), step=0).now(10**6)


def test_a_training_saves_itself_by_the_clock(tmp_path, falcon, monkeypatch):
    """Every minute of a clock that runs a minute a look."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: 60.0 * next(ticks)))
    saved = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, progress, *state: saved.append(progress.step))
    run(settings(**(CHOSEN | {"checkpoints": Section(every_minutes=1)})), training_job(tmp_path, falcon, SIZES))
    assert saved == list(range(1, sum(SIZES.values()) // 4 + 1)), "after each step, the last one before the validation"


@pytest.mark.parametrize(
    "section", [None, Validation(every_steps=6), Validation(every_steps=6, keep_best=True)], ids=["after", "during", "best"]
)
def test_killed_while_it_validates_after_its_last_step_it_trains_no_step_again(tmp_path, falcon, monkeypatch, section):
    chosen = settings(**CHOSEN, validation=section)
    whole, job = training_job(tmp_path / "whole", falcon, SIZES), training_job(tmp_path / "job", falcon, SIZES)
    expected = run(chosen, whole)

    class Killed(BaseException):
        """Nothing that the training could handle."""

    original = Validator.ask

    def killed(self, step, micro_rows):
        if step == 16:
            raise Killed
        return original(self, step, micro_rows)

    monkeypatch.setattr(Validator, "ask", killed)
    with pytest.raises(Killed):
        run(chosen, job)
    monkeypatch.setattr(Validator, "ask", original)
    monkeypatch.setattr(Trainer, "_gradient", lambda self, step: pytest.fail(f"step {step + 1} is trained again"))
    found = run(chosen, job)
    assert contents(job.output) == contents(whole.output) and job.plot.read_bytes() == whole.plot.read_bytes()
    assert found["validation_loss"] == expected["validation_loss"]


def test_a_validation_that_runs_out_of_memory_goes_on_with_fewer_rows(tmp_path, falcon, monkeypatch, capsys):
    chosen = settings(**CHOSEN)
    expected = run(chosen, training_job(tmp_path / "whole", falcon, SIZES))
    original, sizes = Replicated.forward, []

    def forward(self, inputs):
        if not self.model.training:
            sizes.append(len(inputs["input_ids"]))
            if sizes[-1] > 3:
                raise MemoryError
        return original(self, inputs)

    monkeypatch.setattr(Replicated, "forward", forward)
    job = training_job(tmp_path / "job", falcon, SIZES)
    found = run(chosen, job)
    assert max(sizes) > 3 and sizes[-1] <= 3
    assert found["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-5)
    assert "validation: out of memory with batches of 4 rows; going on with 2" in capsys.readouterr().err
    with pytest.raises(UserError, match="even with batches of one row"):
        monkeypatch.setattr(Replicated, "forward", refusing(original))
        run(chosen, training_job(tmp_path / "refused", falcon, SIZES))


def refusing(forward):
    """A forward pass that has memory for training only."""

    def refused(self, inputs):
        if not self.model.training:
            raise MemoryError
        return forward(self, inputs)

    return refused
