"""Bootstrap intervals and permutation tests over sums of rows, as matrix products.

A seed determines the resamples, whatever is measured, so models that answered the same rows are resampled together (paired).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_CHUNK = 2_000_000
"""Numbers per chunk of resamples, which bounds memory."""

_TIE = 1e-12
"""Tolerance for equal differences, since sums in another order round differently."""


def bootstrap_sums(rows: Array, resamples: int, seed: int) -> Array:
    """Sums [resamples, columns] over bootstrap samples of ROWS [rows, columns] (Efron, 1979)."""
    count, rng = len(rows), np.random.default_rng(seed)
    sums = []
    for size in _chunks(resamples, count):
        drawn = rng.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        often = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        sums.append(often.astype(np.float64) @ rows)
    return np.concatenate(sums)


def interval(values: Array, confidence: float) -> tuple[float, float]:
    """The percentile interval of bootstrapped VALUES [resamples]."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def permutation_differences(
    ours: Array, theirs: Array, resamples: int, seed: int, difference: Callable[[Array, Array], Array]
) -> tuple[Array, bool]:
    """DIFFERENCE of the two models' sums under permutations (rows exchanged between the models), and whether all permutations were used.

    OURS and THEIRS are [rows, columns], of the same rows. With few rows all permutations are used, else RESAMPLES random ones.
    """
    exact = 2 ** len(ours) <= resamples
    total_ours, total_theirs, apart = ours.sum(0), theirs.sum(0), theirs - ours
    found = []
    for exchanged in _all_choices(len(ours)) if exact else _random_choices(len(ours), resamples, seed):
        moved = exchanged.astype(np.float64) @ apart
        found.append(difference(total_ours + moved, total_theirs - moved))
    return np.concatenate(found), exact


def p_value(observed: float, permuted: Array, exact: bool) -> float:
    """The two-sided p-value of OBSERVED; if not EXACT, the observation counts as one more permutation."""
    as_large = int(np.count_nonzero(np.abs(permuted) >= abs(observed) - _TIE))
    return as_large / len(permuted) if exact else (as_large + 1) / (len(permuted) + 1)


def _all_choices(count: int) -> Iterator[Array]:
    yield (np.arange(2**count)[:, None] >> np.arange(count)) & 1


def _random_choices(count: int, resamples: int, seed: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for size in _chunks(resamples, count):
        yield rng.integers(0, 2, (size, count), dtype=np.uint8)


def _chunks(resamples: int, count: int) -> Iterator[int]:
    size = max(1, _CHUNK // max(count, 1))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def holm(values: list[float]) -> list[float]:
    """P-values corrected to control the family-wise error rate (Holm, 1979)."""
    order = sorted(range(len(values)), key=lambda number: values[number])
    corrected, highest = [0.0] * len(values), 0.0
    for rank, number in enumerate(order):
        highest = max(highest, min(1.0, values[number] * (len(values) - rank)))
        corrected[number] = highest
    return corrected


def benjamini_hochberg(values: list[float]) -> list[float]:
    """P-values corrected to control the false discovery rate (Benjamini and Hochberg, 1995)."""
    order = sorted(range(len(values)), key=lambda number: values[number], reverse=True)
    corrected, lowest = [0.0] * len(values), 1.0
    for rank, number in enumerate(order):
        lowest = min(lowest, values[number] * len(values) / (len(values) - rank))
        corrected[number] = lowest
    return corrected


CORRECTIONS: dict[str, Callable[[list[float]], list[float]]] = {
    "holm": holm,
    "benjamini_hochberg": benjamini_hochberg,
    "none": list,
}
