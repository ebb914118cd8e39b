"""Samplers: shares as they are defined, by rows, tokens or supervised tokens, with upsampling, caps and phases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.mix.samplers.curriculum import Curriculum, Stage
from stages.mix.samplers.equal import Equal
from stages.mix.samplers.proportional import Proportional
from stages.mix.samplers.sizes import Size
from stages.mix.samplers.temperature import Temperature
from stages.mix.samplers.weights import Weights

TASKS = {"small": Size(100, 1_000, 500), "middle": Size(1_000, 100_000, 10_000), "large": Size(10_000, 200_000, 50_000)}
sizes = st.builds(lambda rows, length: Size(rows, rows * length, rows), st.integers(1, 10_000), st.integers(1, 500))
tasks = st.dictionaries(st.sampled_from("abcd"), sizes, min_size=1)


def rows(sampler, found=TASKS):
    (phase,) = sampler.phases(found)
    return phase


def test_a_temperature_of_one_is_proportional_and_a_high_one_nearly_equal():
    assert rows(Temperature(temperature=1.0)) == rows(Proportional()) == {"small": 100, "middle": 1_000, "large": 10_000}
    assert rows(Temperature(temperature=1e9)) == {"small": 3_700, "middle": 3_700, "large": 3_700}


def test_shares_are_powers_of_the_capped_sizes():
    found = rows(Temperature(temperature=2.0, cap=2_500))
    assert sum(found.values()) == pytest.approx(3_600, abs=2), "as many rows as all tasks have together, each at most the cap"
    assert found["large"] / found["small"] == pytest.approx((2_500 / 100) ** 0.5, rel=0.01)
    assert found["middle"] / found["small"] == pytest.approx((1_000 / 100) ** 0.5, rel=0.01)


@pytest.mark.parametrize("unit", ["rows", "tokens", "supervised_tokens"])
def test_weights_are_shares_of_what_they_say(unit):
    weights = {"small": 1.0, "middle": 2.0, "large": 5.0}
    found = rows(Weights(weights=weights, by=unit))
    given_units = {name: count * TASKS[name].of(unit) / TASKS[name].rows for name, count in found.items()}
    total = sum(given_units.values())
    for name, weight in weights.items():
        assert given_units[name] / total == pytest.approx(weight / 8, rel=0.02)


def test_upsampling_and_caps_are_by_task():
    sampler = Proportional(upsampling={"small": 3.0, "middle": 0.5}, caps={"large": 2_000})
    assert rows(sampler) == {"small": 300, "middle": 500, "large": 2_000}
    assert rows(Equal(caps={"small": 7})) == {"small": 7, "middle": 10_000, "large": 10_000}


@given(tasks, st.sampled_from([Equal(), Proportional(), Temperature(), Temperature(cap=10), Proportional(upsampling={"a": 0.001})]))
def test_every_task_gives_something(found, sampler):
    assert rows(sampler, found).keys() == found.keys() and min(rows(sampler, found).values()) >= 1


@given(tasks, st.floats(1, 50))
def test_a_higher_temperature_never_widens_the_shares(found, temperature):
    cool, warm = (rows(Temperature(temperature=value), found) for value in (temperature, temperature + 1))
    assert max(warm.values()) <= max(cool.values()) + 1


def test_a_curriculum_is_its_stages_in_order():
    sampler = Curriculum(
        stages=(Stage(tasks=("small",), epochs=2.0), Stage(tasks=("small", "large"), sampler=Equal(caps={"large": 50})), Stage(epochs=0.1))
    )
    assert sampler.phases(TASKS) == (
        {"small": 200},
        {"small": 10_000, "large": 50},
        {"small": 10, "middle": 100, "large": 1_000},
    )
    assert sampler.named_tasks() == {"small", "large"}
