"""Packing: no bin overflows, nothing is lost, never looser than the textbook's algorithm, tight on real lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.mix.packing import best_fit_decreasing, closed_exactly, packed

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


@given(st.sampled_from([best_fit_decreasing, closed_exactly, packed]), lengths, st.integers(40, 100))
def test_no_bin_overflows_none_is_empty_and_every_row_is_in_one(way, lengths, capacity):
    bins, count = way(lengths, capacity)
    assert len(bins) == len(lengths)
    held = np.bincount(bins, lengths, minlength=count)
    assert len(held) == count and (count == 0 or (held.min() > 0 and held.max() <= capacity))


@given(lengths, st.integers(40, 100))
def test_best_fit_decreasing_is_the_textbooks_and_what_is_used_never_needs_more(lengths, capacity):
    wanted = textbook(lengths, capacity)
    assert best_fit_decreasing(lengths, capacity)[1] == wanted
    assert packed(lengths, capacity)[1] <= wanted


@given(lengths, st.integers(40, 100))
def test_it_is_the_same_every_time(lengths, capacity):
    bins, _ = packed(lengths, capacity)
    again, _ = packed(lengths.copy(), capacity)
    assert (bins == again).all()


@pytest.mark.parametrize("shortest", [1, 50])
def test_rows_as_people_write_them_are_packed_tightly(shortest):
    lengths = np.random.default_rng(0).lognormal(5.0, 0.5, 20_000).astype(np.int64).clip(shortest, 1024)
    assert lengths.sum() / (packed(lengths, 1024)[1] * 1024) >= 0.995


def test_where_no_row_is_short_bins_are_closed_exactly():
    lengths = np.random.default_rng(0).lognormal(5.0, 0.5, 20_000).astype(np.int64).clip(50, 1024)
    assert closed_exactly(lengths, 1024)[1] < 0.995 * best_fit_decreasing(lengths, 1024)[1]


def test_bins_longer_than_16_bits_can_count():
    lengths = np.array([70_000, 30_000, 60_000, 40_000])
    bins, count = packed(lengths, 100_000)
    assert count == 2 and bins[0] == bins[1] and bins[2] == bins[3]
