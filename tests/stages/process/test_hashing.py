"""Decisions by hash: typed, order-free over keys, even, and fixed for ever."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.process.hashing import canonical, choice, content_hash, fraction, seed_from

ROOT = Path(__file__).parents[3]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_the_order_of_keys_does_not_matter(row):
    assert canonical(row) == canonical(dict(reversed(row.items())))


@given(json_values, json_values)
def test_equal_bytes_mean_equal_values_of_equal_types(left, right):
    if canonical(left) == canonical(right):
        assert left == right and type(left) is type(right)


def test_numbers_booleans_and_text_stay_apart():
    assert len({content_hash(value) for value in (1, 1.0, True, "1", None, "null", [1])}) == 7


def test_several_values_are_not_their_concatenation():
    assert content_hash("ab", "c") != content_hash("a", "bc")


def test_lone_surrogates_have_a_hash():
    assert content_hash("\ud800") != content_hash("\ud801")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_are_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(number)


@given(json_values)
def test_a_fraction_lies_in_the_half_open_unit_interval(value):
    assert 0 <= fraction(value) < 1


def test_fractions_and_choices_are_even():
    tenths = Counter(int(fraction("even", number) * 10) for number in range(10_000))
    thirds = Counter(choice(3, "even", number) for number in range(9_000))
    assert all(abs(count - 1000) < 150 for count in tenths.values()) and len(tenths) == 10
    assert all(abs(count - 3000) < 300 for count in thirds.values()) and len(thirds) == 3


def test_values_are_fixed_for_ever():
    # Another number here would move the split of every row of every workspace.
    assert content_hash({"b": 1, "a": "ü"}) == "a24f772b6dfdbfe9bcd1187f3e7bd69fabe3d50d59925722ec526d643010a7c3"
    assert seed_from("x") == int(content_hash("x"), 16)


def test_another_process_with_another_hash_seed_agrees():
    code = "from stages.process.hashing import content_hash; print(content_hash({'x': 'ü', 'y': [1, 2.5]}))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {content_hash({"y": [1, 2.5], "x": "ü"}) + "\n"}
