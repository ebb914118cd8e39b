"""Bin packing of rows by length: best-fit decreasing, and closing bins exactly, whichever needs fewer bins.

Best-fit decreasing (Johnson, 1973, "Near-optimal bin packing algorithms") wastes up to the shortest row's length in each bin, which adds up
if no row is short. Both work on counts of rows by length, so the cost grows with the number of distinct lengths; per row there is only an
integer sort.
"""

from bisect import bisect_left, insort
from typing import Any

import numpy as np

from stages.tokens.files import Array


def packed(lengths: Array, capacity: int) -> tuple[Array, int]:
    """The bin of each row, int64 [rows], and the number of bins; no bin exceeds CAPACITY tokens, no row is dropped or divided."""
    closed, best = closed_exactly(lengths, capacity), best_fit_decreasing(lengths, capacity)
    return closed if closed[1] <= best[1] else best


def closed_exactly(lengths: Array, capacity: int) -> tuple[Array, int]:
    """Like `packed`: each bin starts with the longest remaining row and is closed, as early as possible, by one or two rows that fill it.

    A variant of minimum bin slack (Gupta and Ho, 1999) that closes as many equal bins at once as there are rows for.
    """
    counts = np.bincount(lengths, minlength=capacity + 1)
    by_length = np.argsort(lengths.astype(_integers(capacity)), kind="stable")
    next_row = np.concatenate([[0], np.cumsum(counts)[:-1]])
    found = np.empty(len(lengths), np.int64)
    bins, left = 0, len(lengths)
    while left:
        different, times = np.unique(_pattern(counts.copy(), capacity), return_counts=True)
        repeats = int((counts[different] // times).min())
        for length, each in zip(different.tolist(), times.tolist(), strict=True):
            start = next_row[length]
            found[by_length[start : start + repeats * each]] = np.repeat(bins + np.arange(repeats), each)
            next_row[length] += repeats * each
        counts[different] -= repeats * times
        bins, left = bins + repeats, left - repeats * int(times.sum())
    return found, bins


def _pattern(counts: Array, space: int) -> list[int]:
    """The lengths of the rows of one bin; decrements COUNTS [lengths], the remaining rows by length."""
    pattern: list[int] = []
    while space:
        if pattern and (last := _closing(counts, space)):
            return [*pattern, *last]
        fitting = np.flatnonzero(counts[1 : space + 1])
        if not len(fitting):
            return pattern
        longest = int(fitting[-1]) + 1
        pattern.append(longest)
        counts[longest] -= 1
        space -= longest
    return pattern


def _closing(counts: Array, space: int) -> tuple[int, ...]:
    """One or two available lengths that sum to SPACE; two as equal as possible, which saves short rows for later."""
    if counts[space]:
        return (space,)
    half = space // 2
    pairs = (counts[1 : half + 1] > 0) & (counts[space - 1 : space - half - 1 : -1] > 0)
    if space % 2 == 0:
        pairs[half - 1] = counts[half] >= 2
    found = np.flatnonzero(pairs)
    return (int(found[-1]) + 1, space - int(found[-1]) - 1) if len(found) else ()


def _integers(capacity: int) -> type[np.unsignedinteger[Any]] | type[np.signedinteger[Any]]:
    """The dtype for lengths: numpy sorts small integers by radix sort, in linear time."""
    return np.uint16 if capacity < 1 << 16 else np.int64


class Bins:
    """Bins of CAPACITY tokens, indexed by remaining tokens."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self._spaces: list[int] = []
        self._bins: dict[int, list[Array]] = {}

    def place(self, length: int, count: int) -> Array:
        """Bins of COUNT rows of LENGTH tokens, int64 [count]; lengths must not increase from call to call."""
        assert 0 < length <= self.capacity
        placed: list[Array] = []
        while count and (at := bisect_left(self._spaces, length)) < len(self._spaces):
            space = self._spaces[at]
            filled = self._fill(self._take(space, at), space, length, count)
            placed.append(filled)
            count -= len(filled)
        if count:
            new = self.count + np.arange(-(-count // (self.capacity // length)))
            self.count += len(new)
            placed.append(self._fill(new, self.capacity, length, count))
        return np.concatenate(placed)

    def _take(self, space: int, at: int) -> Array:
        """Remove some bins with SPACE tokens left from the index."""
        found = self._bins[space].pop()
        if not self._bins[space]:
            del self._bins[space], self._spaces[at]
        return found

    def _fill(self, bins: Array, space: int, length: int, count: int) -> Array:
        """Fill BINS, which have SPACE tokens left each, one after another, until COUNT rows are placed or all are full."""
        each = space // length
        full, rest = divmod(min(count, each * len(bins)), each)
        self._add(bins[:full], space - each * length)
        if rest:
            self._add(bins[full : full + 1], space - rest * length)
        self._add(bins[full + (rest > 0) :], space)
        return np.repeat(bins[: full + (rest > 0)], each)[:count]

    def _add(self, bins: Array, space: int) -> None:
        if len(bins) and space:
            if space not in self._bins:
                insort(self._spaces, space)
                self._bins[space] = []
            self._bins[space].append(bins)


def best_fit_decreasing(lengths: Array, capacity: int) -> tuple[Array, int]:
    """Like `packed`: longest rows first, each into the fullest bin with room.

    The decreasing order makes it fast: a bin with S tokens left takes S // L rows of length L before any other bin fits better, so all rows
    of one length are placed together.
    """
    order = np.argsort((capacity - lengths).astype(_integers(capacity)), kind="stable")
    different, counts = np.unique(lengths, return_counts=True)
    bins = Bins(capacity)
    found = np.empty(len(lengths), np.int64)
    start = 0
    for length, count in zip(different[::-1].tolist(), counts[::-1].tolist(), strict=True):
        found[order[start : start + count]] = bins.place(length, count)
        start += count
    return found, bins.count
