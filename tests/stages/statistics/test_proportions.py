"""Intervals of proportions hold what they promise: their coverage is counted, exactly and by simulation."""

from math import comb

import numpy as np
import pytest
from scipy import stats

from stages.statistics.proportions import interval_of_difference, interval_of_proportion

CERTAIN = [0.001, 0.01, 0.05, 0.3, 0.5, 0.9, 0.97, 0.995]


def test_it_is_clopper_and_pearsons():
    for rows in (1, 2, 7, 60, 202, 5000):
        for successes in {0, 1, rows // 3, rows - 1, rows}:
            for confidence in (0.9, 0.95, 0.99):
                wanted = stats.binomtest(successes, rows).proportion_ci(confidence, "exact")
                assert interval_of_proportion(successes, rows, confidence) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_202_right_rows_of_202_are_not_certain():
    low, high = interval_of_proportion(202, 202, 0.95)
    assert low == pytest.approx(0.98190, abs=1e-5) and high == 1
    assert interval_of_proportion(0, 202, 0.95) == pytest.approx((0, 1 - low))


@pytest.mark.parametrize("rows", [1, 3, 10, 40, 202])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_true_proportion_is_inside_as_often_as_promised(rows, confidence):
    found = [interval_of_proportion(successes, rows, confidence) for successes in range(rows + 1)]
    for p in CERTAIN:
        chance = stats.binom.pmf(np.arange(rows + 1), rows, p)
        covered = sum(chance[n] for n, (low, high) in enumerate(found) if low <= p <= high)
        assert covered >= confidence - 1e-9


@pytest.mark.parametrize("rows", [2, 5, 12, 25])
def test_the_true_difference_is_inside_as_often_as_promised(rows):
    found = {
        (ours, theirs): interval_of_difference(ours, theirs, rows, 0.95) for ours in range(rows + 1) for theirs in range(rows + 1 - ours)
    }
    for only_ours in (0.001, 0.01, 0.05, 0.2, 0.45):
        for only_theirs in (0.001, 0.01, 0.05, 0.2, 0.5):
            covered = 0.0
            for (ours, theirs), (low, high) in found.items():
                ways = comb(rows, ours) * comb(rows - ours, theirs)
                rest = (1 - only_ours - only_theirs) ** (rows - ours - theirs)
                if low <= only_ours - only_theirs <= high:
                    covered += ways * only_ours**ours * only_theirs**theirs * rest
            assert covered >= 0.95


def test_coverage_of_differences_by_simulation():
    rng = np.random.default_rng(0)
    for rows, shares in ((30, (0.02, 0.05, 0.93)), (202, (0.0, 0.01, 0.99)), (202, (0.1, 0.12, 0.78))):
        drawn = rng.multinomial(rows, shares, 1500)
        inside = [low <= shares[0] - shares[1] <= high for o, t, _ in drawn for low, high in [interval_of_difference(o, t, rows, 0.95)]]
        assert np.mean(inside) > 0.95 - 0.017, "three standard errors of 1,500 draws"


def test_an_interval_lies_around_what_was_seen_and_turns_round_with_the_models():
    for rows in (1, 4, 50):
        for ours in range(0, rows + 1, max(1, rows // 4)):
            for theirs in range(0, rows + 1 - ours, max(1, rows // 4)):
                low, high = interval_of_difference(ours, theirs, rows, 0.95)
                assert -1 <= low <= (ours - theirs) / rows <= high <= 1 and low < high
                assert interval_of_difference(theirs, ours, rows, 0.95) == pytest.approx((-high, -low), abs=1e-9)
