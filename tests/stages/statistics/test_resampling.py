"""Intervals and tests against scipy, and corrections against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluate.metrics.statistic import ratio
from stages.statistics.resampling import benjamini_hochberg, bootstrap_sums, holm, interval, p_value, permutation_differences

stats = pytest.importorskip("scipy.stats")


def means(values):
    return np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)


def difference(ours, theirs):
    return ratio(ours) - ratio(theirs)


def test_the_interval_of_a_mean_is_scipys_to_the_digit():
    values = np.random.default_rng(1).normal(size=37)
    found = interval(ratio(bootstrap_sums(means(values), 2000, 5)), 0.9)
    rng = np.random.default_rng(5)
    expected = stats.bootstrap((values,), np.mean, n_resamples=2000, confidence_level=0.9, method="percentile", rng=rng).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says():
    rng, held = np.random.default_rng(3), 0
    for trial in range(300):
        low, high = interval(ratio(bootstrap_sums(means(rng.normal(size=60)), 400, trial)), 0.9)
        held += low <= 0 <= high
    assert 0.84 <= held / 300 <= 0.95


def test_many_rows_are_drawn_in_pieces_and_the_same_seed_draws_the_same():
    rows = means(np.random.default_rng(1).normal(size=30_000))
    whole = bootstrap_sums(rows, 150, 7)
    assert whole.shape == (150, 2) and (whole[:, 1] == 30_000).all()
    assert np.array_equal(whole, bootstrap_sums(rows, 150, 7)) and not np.array_equal(whole, bootstrap_sums(rows, 150, 8))
    spread = ratio(whole).std()
    assert spread == pytest.approx(1 / np.sqrt(30_000), rel=0.25)


@pytest.mark.parametrize("count", [3, 8, 11])
def test_a_permutation_test_of_few_rows_is_scipys(count):
    rng = np.random.default_rng(count)
    ours, theirs = rng.normal(0.5, 1, count), rng.normal(size=count)
    permuted, exact = permutation_differences(means(ours), means(theirs), 10_000, 0, difference)
    expected = stats.permutation_test((ours, theirs), lambda a, b: a.mean() - b.mean(), permutation_type="samples", n_resamples=10_000)
    assert exact and len(permuted) == 2**count
    assert p_value(ours.mean() - theirs.mean(), permuted, exact) == pytest.approx(expected.pvalue, abs=1e-12)


def test_a_permutation_test_of_many_rows_is_near_scipys_and_near_the_t_test():
    rng = np.random.default_rng(2)
    ours, theirs = rng.normal(0.25, 1, 80), rng.normal(size=80)
    permuted, exact = permutation_differences(means(ours), means(theirs), 20_000, 0, difference)
    found = p_value(ours.mean() - theirs.mean(), permuted, exact)
    assert not exact and found == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, abs=0.02)
    expected = stats.permutation_test(
        (ours, theirs), lambda a, b: a.mean() - b.mean(), permutation_type="samples", n_resamples=5000, rng=np.random.default_rng(1)
    )
    assert found == pytest.approx(expected.pvalue, abs=0.02)


def test_equal_models_do_not_differ():
    same = means([1.0, 0.0, 1.0, 1.0, 0.0] * 9)
    permuted, exact = permutation_differences(same, same, 500, 0, difference)
    assert p_value(0.0, permuted, exact) == 1.0


def test_a_test_that_is_always_right_has_the_smallest_p_there_is():
    permuted, exact = permutation_differences(means([1.0] * 40), means([0.0] * 40), 999, 0, difference)
    assert p_value(1.0, permuted, exact) == 1 / 1000


def test_a_test_without_a_difference_finds_one_as_often_as_it_says():
    rng, found = np.random.default_rng(4), 0
    for trial in range(300):
        ours, theirs = rng.normal(size=20), rng.normal(size=20)
        permuted, exact = permutation_differences(means(ours), means(theirs), 400, trial, difference)
        found += p_value(ours.mean() - theirs.mean(), permuted, exact) < 0.05
    assert 0.015 <= found / 300 <= 0.095


PS = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(PS)
def test_benjamini_hochberg_is_scipys(values):
    assert benjamini_hochberg(values) == pytest.approx(list(stats.false_discovery_control(values)))


@settings(deadline=None)
@given(PS, st.floats(0.001, 0.5))
def test_holm_rejects_what_its_procedure_rejects(values, level):
    """Holm's procedure by its words: from the smallest on, compare with level / (how many are left), stop at a larger one."""
    rejected, left = set(), sorted(range(len(values)), key=lambda number: values[number])
    while left and values[left[0]] * len(left) <= level:
        rejected.add(left.pop(0))
    corrected = holm(values)
    assert {number for number, value in enumerate(corrected) if value <= level} == rejected
    assert all(value <= one for value, one in zip(values, corrected, strict=True))
    assert all(one <= other + 1e-15 for one, other in zip(benjamini_hochberg(values), corrected, strict=True)), "the weaker of the two"
