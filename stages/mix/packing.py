"""Best-fit decreasing: rows of many lengths laid tightly into bins of one size (Johnson, 1973, "Near-optimal bin packing algorithms").

The decreasing order makes it fast: a bin with S tokens left takes S // L rows of length L before any other bin is a better fit, so that
all rows of one length are placed together. The cost grows with the number of different lengths; for a row there is but a sort of integers.
"""

from bisect import bisect_left, insort

import numpy as np

from stages.common.tokens import Array


class Bins:
    """Bins of CAPACITY tokens, by the tokens that are left in them."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self._spaces: list[int] = []
        self._bins: dict[int, list[Array]] = {}

    def place(self, length: int, count: int) -> Array:
        """Numbers of the bins that COUNT rows of LENGTH tokens go to, int64 [count]; no row placed before was shorter."""
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
        """Some bins with SPACE tokens left, which are its own no more."""
        found = self._bins[space].pop()
        if not self._bins[space]:
            del self._bins[space], self._spaces[at]
        return found

    def _fill(self, bins: Array, space: int, length: int, count: int) -> Array:
        """Put rows into BINS, which have SPACE tokens left each, one bin after another, until COUNT rows are placed or all are full."""
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
    """The bin of each row, int64 [rows], and the number of bins; no bin holds more than CAPACITY tokens, no row is left out or divided."""
    # Small integers are sorted by radix, in linear time.
    kind = np.uint16 if capacity < 1 << 16 else np.int64
    order = np.argsort((capacity - lengths).astype(kind), kind="stable")
    different, counts = np.unique(lengths, return_counts=True)
    bins = Bins(capacity)
    found = np.empty(len(lengths), np.int64)
    start = 0
    for length, count in zip(different[::-1].tolist(), counts[::-1].tolist(), strict=True):
        found[order[start : start + count]] = bins.place(length, count)
        start += count
    return found, bins.count
