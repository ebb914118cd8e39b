"""The interface of metrics: numbers per row, and a function from their sums over any set of rows to one value.

Since every value is a function of sums, thousands of resamples are one matrix product, also for a corpus metric such as BLEU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.rows.prediction import Prediction

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

__all__ = ["Prediction", "Statistic", "answer_of", "mean_of", "proportion_of", "ratio", "ratio_of", "reference_of", "references_of"]


@dataclass(frozen=True)
class Statistic:
    """One value of a metric: its name, numbers per row [rows][columns], and the function from sums [..., columns] to values [...]."""

    name: str
    rows: Sequence[Sequence[float]]
    value: "Callable[[Array], Array]"
    signature: str | None = None
    """The library's signature of how the value was computed."""
    bounded: bool = False
    """Whether the value is the mean of one number from 0 to 1 per row. If all these numbers are 0 or 1, it is a proportion, and its
    interval is not bootstrapped: with equal rows all resamples are equal, and the interval would have zero width."""


def ratio(sums: "Array") -> "Array":
    """Values [...] of SUMS [..., 2]: the first divided by the second; 0 if the second is 0."""
    import numpy as np

    return np.divide(sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] != 0)


def mean_of(name: str, values: Sequence[float], bounded: bool = False) -> Statistic:
    """The mean of one number per row; BOUNDED: the numbers are in [0, 1] by definition."""
    return Statistic(name, [(float(value), 1.0) for value in values], ratio, bounded=bounded)


def proportion_of(name: str, flags: Sequence[bool]) -> Statistic:
    """The share of the rows whose flag is set."""
    return mean_of(name, flags, bounded=True)


def ratio_of(name: str, parts: Sequence[float], wholes: Sequence[float]) -> Statistic:
    """The sum of PARTS divided by the sum of WHOLES (micro-average)."""
    return Statistic(name, [(float(part), float(whole)) for part, whole in zip(parts, wholes, strict=True)], ratio)


def answer_of(prediction: Prediction) -> str:
    """The answer, which every generated prediction has."""
    assert prediction.answer is not None
    return prediction.answer


def reference_of(prediction: Prediction) -> str:
    """The reference (the first of several), whose presence was checked beforehand for metrics that need one."""
    assert prediction.reference is not None
    return prediction.reference


def references_of(prediction: Prediction) -> tuple[str, ...]:
    """All references, at least one; the completion of training comes first."""
    return prediction.references or (reference_of(prediction),)
