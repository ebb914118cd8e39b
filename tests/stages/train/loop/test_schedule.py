"""The learning rate rises, peaks once and ends at the floor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.train import Schedule
from stages.train.loop.schedule import factor

KINDS = ["constant", "linear", "cosine"]
SCHEDULES = st.builds(Schedule, kind=st.sampled_from(KINDS), warmup_ratio=st.floats(0, 1), floor=st.floats(0, 1))


@given(SCHEDULES, st.integers(1, 200))
def test_rate_is_a_share_of_the_peak_and_never_zero_while_training(schedule, steps):
    factors = [factor(schedule, step, steps) for step in range(steps)]
    assert all(0 < value <= 1 for value in factors)


@given(SCHEDULES, st.integers(1, 200))
def test_rate_rises_and_then_falls(schedule, steps):
    factors = [factor(schedule, step, steps) for step in range(steps + 1)]
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_floor_is_what_is_left_after_the_last_step(kind):
    schedule = Schedule(kind=kind, warmup_ratio=0.1, floor=0.25)
    assert factor(schedule, 50, 50) == pytest.approx(0.25)
    assert factor(schedule, 49, 50) > 0.25


def test_constant_stays_at_the_peak_whatever_the_floor():
    schedule = Schedule(kind="constant", warmup_ratio=0.0, floor=0.5)
    assert {factor(schedule, step, 10) for step in range(10)} == {1.0}


def test_known_values():
    linear = Schedule(kind="linear", warmup_ratio=0.2)
    assert [factor(linear, step, 10) for step in (0, 1, 2, 6, 9)] == pytest.approx([1 / 3, 2 / 3, 1, 0.5, 0.125])
    cosine = Schedule(kind="cosine", warmup_ratio=0.0)
    assert [factor(cosine, step, 4) for step in range(4)] == pytest.approx([1, 0.8535534, 0.5, 0.1464466])


def test_one_step_uses_the_peak():
    assert factor(Schedule(warmup_ratio=0.0), 0, 1) == 1.0
