"""What a metric hands on: numbers of each row, and how the sums of these numbers over any choice of rows become one value.

Because every value is a function of sums, thousands of resamples are one matrix product, for a corpus metric such as BLEU too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.rows.predictions import Prediction

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

__all__ = ["Prediction", "Statistic", "answer_of", "mean_of", "proportion_of", "ratio", "ratio_of", "reference_of", "references_of"]


@dataclass(frozen=True)
class Statistic:
    """One value of a metric: its name, the numbers of each row [rows][columns], and the value of sums [..., columns]."""

    name: str
    rows: Sequence[Sequence[float]]
    value: "Callable[[Array], Array]"
    signature: str | None = None
    """How the value was computed, in the words of the library that did."""
    bounded: bool = False
    """Whether the value is the mean of one number from 0 to 1 for each row. Where all these numbers are 0 or 1 it is a proportion, whose
    interval a bootstrap cannot tell: resamples of rows that are all alike are all alike."""


def ratio(sums: "Array") -> "Array":
    """The first sum divided by the second; 0 where the second is 0."""
    import numpy as np

    return np.divide(sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] != 0)


def mean_of(name: str, values: Sequence[float], bounded: bool = False) -> Statistic:
    """The mean of one number a row; BOUNDED where the number lies between 0 and 1 by its definition."""
    return Statistic(name, [(float(value), 1.0) for value in values], ratio, bounded=bounded)


def proportion_of(name: str, flags: Sequence[bool]) -> Statistic:
    """The share of the rows for which something holds."""
    return mean_of(name, flags, bounded=True)


def ratio_of(name: str, parts: Sequence[float], wholes: Sequence[float]) -> Statistic:
    """All rows' parts divided by all rows' wholes: long rows weigh more."""
    return Statistic(name, [(float(part), float(whole)) for part, whole in zip(parts, wholes, strict=True)], ratio)


def answer_of(prediction: Prediction) -> str:
    """The answer, which every asked row has."""
    assert prediction.answer is not None
    return prediction.answer


def reference_of(prediction: Prediction) -> str:
    """The reference, of several the first; that there is one was checked before a metric that needs it is asked."""
    assert prediction.reference is not None
    return prediction.reference


def references_of(prediction: Prediction) -> tuple[str, ...]:
    """Every reference, one at least: what was learned comes first."""
    return prediction.references or (reference_of(prediction),)
