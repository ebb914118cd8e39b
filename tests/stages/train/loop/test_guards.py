"""A training that is of no use stops and says what to try; one that is asked to stop finishes its step first."""

import os
import re
import signal

import pytest

from engine.core.errors import UserError
from stages.train import Checkpoints, GlobalBatch, Schedule
from stages.train.body import run
from stages.train.loop.guards import WINDOW, StopRequest, refuse_bad_course
from stages.train.loop.record import Point
from stages.train.methods import Lora
from stages.train.objectives.dpo import Dpo
from stages.train.objectives.kto import Kto
from stages.train.objectives.orpo import Orpo
from stages.train.objectives.simpo import Simpo
from tests.stages.train.tiny import settings, training_job


def course(losses, norms=None):
    return [Point(step, loss, 1e-3, (norms or [1.0] * len(losses))[step - 1]) for step, loss in enumerate(losses, 1)]


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan")), (1.0, float("inf"))])
def test_a_number_that_is_none_stops_the_training(loss, norm):
    with pytest.raises(UserError, match="at step 2: the training has diverged") as caught:
        refuse_bad_course(course([1.0, loss], [1.0, norm]), False)
    assert "learning_rate" in caught.value.problems[0].hint


def test_a_loss_far_above_its_beginning_stops_the_training_unless_told_otherwise():
    risen = course([2.0] * WINDOW + [1.0] * WINDOW + [3.2] * WINDOW)
    with pytest.raises(UserError, match=r"risen from 2 to 3\.2 by step 60") as caught:
        refuse_bad_course(risen, True)
    assert "stop_on_divergence" in caught.value.problems[0].hint
    refuse_bad_course(risen, False)


@pytest.mark.parametrize("losses", [[2.0] * 100, [0.01, 0.012] * 50, [3.0] * 40 + [9.0] * 3 + [2.0] * 20, [2.0] * 30 + [2.9] * 20])
def test_noise_spikes_and_slow_learning_are_no_divergence(losses):
    for end in range(1, len(losses) + 1):
        refuse_bad_course(course(losses[:end]), True)


def falling(start, end, steps):
    return [start + (end - start) * step / steps for step in range(steps)]


def test_a_loss_that_never_falls_stops_the_training_unless_told_otherwise():
    noise = [2.0, 2.01, 1.99, 2.0] * 10
    refuse_bad_course(course(noise[:39]), True, 40)
    with pytest.raises(UserError, match=r"has not decreased: 2 at first, 2 by step 40 .*checkpoint is kept") as caught:
        refuse_bad_course(course(noise), True, 40)
    assert "learning_rate" in caught.value.problems[0].hint and "stop_without_progress = 0" in caught.value.problems[0].hint
    refuse_bad_course(course(noise), True, 0)


@pytest.mark.parametrize(
    "losses", [falling(2.0, 1.8, 200), [2.0, 1.5] * 100, [*falling(2.0, 1.0, 40), *[1.0] * 200], [1e-9] * 20 + [0.0] * 100, [0.0] * 100]
)
def test_slow_learning_and_a_floor_that_was_reached_are_progress(losses):
    for end in range(1, len(losses) + 1):
        refuse_bad_course(course(losses[:end]), True, 40)


def test_steps_of_the_warm_up_are_no_lack_of_progress():
    rising = [Point(step, 2.0, min(step, 50) * 1e-5, 1.0) for step in range(1, 121)]
    for end in range(1, len(rising)):
        refuse_bad_course(rising[:end], True, 40)
    with pytest.raises(UserError, match="has not decreased"):
        refuse_bad_course(rising, True, 40)


def test_a_training_that_learns_nothing_keeps_its_checkpoints(tmp_path, falcon):
    job = training_job(tmp_path, falcon, {"copy": 64})
    chosen = {"method": Lora(r=4), "learning_rate": 1e-12, "checkpoints": Checkpoints(every_steps=8), "global_batch": GlobalBatch(rows=2)}
    with pytest.raises(UserError, match=r"has not decreased: 5\.68\d* at first, 5\.69\d* by step 31"):
        run(settings(**chosen, schedule=Schedule(kind="constant", warmup_ratio=0.0), stop_without_progress=31), job)
    assert list((job.scratch / "checkpoints").glob("step-*.safetensors")) and list(job.output.iterdir()) == []


def test_a_gradient_that_stays_zero_stops_the_training():
    refuse_bad_course(course([1.0] * (WINDOW - 1), [0.0] * (WINDOW - 1)), True)
    with pytest.raises(UserError, match="the model does not learn"):
        refuse_bad_course(course([1.0] * WINDOW, [0.0] * WINDOW), True)


def test_a_diverging_training_keeps_its_last_good_checkpoint(tmp_path, falcon):
    job = training_job(tmp_path, falcon)
    chosen = {"method": Lora(r=4), "max_grad_norm": 1e30, "checkpoints": Checkpoints(every_steps=1), "global_batch": GlobalBatch(rows=2)}
    with pytest.raises(UserError, match="has diverged"):
        run(settings(**chosen, learning_rate=1e30), job)
    assert list((job.scratch / "checkpoints").glob("step-*.safetensors"))
    assert list(job.output.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_a_later_one_ends_it_at_once(number, monkeypatch):
    before, asked, clock = signal.getsignal(number), StopRequest(), [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with asked.listening():
        assert not asked
        os.kill(os.getpid(), number)
        assert asked
        # A scheduler signals every process of a job, and whoever started this one hands the signal on.
        os.kill(os.getpid(), signal.SIGTERM)
        clock[0] += 10
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_file_asks_to_stop_too(tmp_path):
    asked = StopRequest(tmp_path / "stop")
    assert not asked
    (tmp_path / "stop").touch()
    assert asked


def test_chosen_answers_that_are_unlearnt_stop_the_training_although_its_loss_falls():
    def pairs(step, logp):
        return Point(step, 0.7 - step / 1000, 1e-3, 1.0, (1.0, 1.0, -1.0, -2.0, logp, logp - 5.0, 4.0, 8.0))

    fallen = [pairs(step, -4.0) for step in range(1, 21)] + [pairs(step, -12.4) for step in range(21, 41)]
    with pytest.raises(UserError, match=r"far less likely: from -1 to -3\.1 nats per token by step 40") as caught:
        refuse_bad_course(fallen, True)
    assert caught.value.problems[0].hint.startswith("decrease training.learning_rate")
    refuse_bad_course(fallen, False)
    refuse_bad_course([pairs(step, -4.0 - step / 10) for step in range(1, 41)], True)


def judged(step, logp, desirable=True):
    """A step on judged answers; means over none are 0."""
    logp, tokens = (logp, 4.0) if desirable else (0.0, 0.0)
    return Point(step, 0.7 - step / 1000, 1e-3, 1.0, (1.0, 1.0, 0.0, -2.0, logp, -9.0, tokens, 8.0, 0.0))


def test_steps_without_a_desirable_answer_are_no_answers_that_became_unlikely():
    never, late, rarely = (
        [judged(step, -10.0 if step > 1 else -0.5, desirable=step % every == 1 and step > after) for step in range(1, 61)]
        for every, after in ((61, 61), (1, 20), (7, 0))
    )
    late = [*late[:20], *(judged(step, -10.0) for step in range(21, 61))]
    for course in (never, late, rarely):
        for end in range(1, len(course) + 1):
            refuse_bad_course(course[:end], True)
    half = [judged(step, -4.0 if step <= 20 else -16.0, desirable=step % 2 == 0) for step in range(1, 41)]
    with pytest.raises(UserError, match=r"from -1 to -4 nats per token by step 40"):
        refuse_bad_course(half, True)


@pytest.mark.parametrize("objective", [Dpo(), Kto(), Orpo(), Simpo()], ids=lambda objective: objective.kind)
def test_what_to_try_names_fields_that_the_objective_has(objective):
    fallen = [judged(step, -4.0 if step <= 20 else -16.0) for step in range(1, 41)]
    with pytest.raises(UserError) as caught:
        refuse_bad_course(fallen, True, remedy=objective.remedy)
    named = re.findall(r"training\.objective\.(\w+)", caught.value.problems[0].hint)
    assert named and set(named) <= set(type(objective).model_fields)
