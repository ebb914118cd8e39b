"""Best-fit decreasing: no bin overflows, nothing is lost, as tight as the textbook's algorithm, and linear in the rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.mix.packing import best_fit_decreasing

lengths = st.lists(st.integers(1, 40), max_size=60).map(lambda values: np.array(values, np.int64))


def textbook(lengths, capacity):
    """Number of bins of best-fit decreasing, row by row: each into the fullest bin that has room."""
    left = []
    for length in sorted(lengths.tolist(), reverse=True):
        room = [number for number, space in enumerate(left) if space >= length]
        if room:
            left[min(room, key=left.__getitem__)] -= length
        else:
            left.append(capacity - length)
    return len(left)


@given(lengths, st.integers(40, 100))
def test_no_bin_overflows_none_is_empty_and_there_are_as_many_as_in_the_textbook(lengths, capacity):
    bins, count = best_fit_decreasing(lengths, capacity)
    assert len(bins) == len(lengths)
    held = np.bincount(bins, lengths, minlength=count)
    assert len(held) == count and (count == 0 or (held.min() > 0 and held.max() <= capacity))
    assert count == textbook(lengths, capacity)


@given(lengths, st.integers(40, 100))
def test_it_is_the_same_every_time_and_two_bins_that_fit_together_do_not_exist(lengths, capacity):
    bins, count = best_fit_decreasing(lengths, capacity)
    again, _ = best_fit_decreasing(lengths.copy(), capacity)
    assert (bins == again).all()
    held = np.sort(np.bincount(bins, lengths, minlength=count))
    assert count < 2 or held[0] + held[1] > capacity


def test_rows_as_people_write_them_are_packed_tightly():
    lengths = np.minimum(1024, np.random.default_rng(0).lognormal(5.3, 0.8, 20_000).astype(np.int64) + 1)
    _, count = best_fit_decreasing(lengths, 1024)
    assert lengths.sum() / (count * 1024) >= 0.995


def test_bins_longer_than_16_bits_can_count():
    lengths = np.array([70_000, 30_000, 60_000, 40_000])
    bins, count = best_fit_decreasing(lengths, 100_000)
    assert count == 2 and bins[0] == bins[1] and bins[2] == bins[3]
