"""Values of all metrics on one model's answers to one task, with intervals, and differences between two models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.core.errors import Location, UserError
from stages.evaluate import Statistics
from stages.evaluate.metrics import AnyMetric
from stages.evaluate.metrics.perplexity import Perplexity
from stages.evaluate.metrics.statistic import Statistic
from stages.rows.prediction import Prediction
from stages.statistics.proportions import PAIRED, PROPORTION, interval_of_difference, interval_of_proportion
from stages.statistics.resampling import Array, bootstrap_sums, interval, p_value, permutation_differences

BOOTSTRAP, PAIRED_BOOTSTRAP = "percentile bootstrap", "paired percentile bootstrap"


@dataclass(frozen=True)
class Score:
    """One value, its confidence interval, and its number of rows."""

    value: float
    low: float
    high: float
    rows: int
    interval: str
    """Method of the interval."""


@dataclass(frozen=True)
class Difference:
    """Difference of one value between two models on the rows that both answered: ours minus theirs."""

    value: float
    other_value: float
    difference: float
    low: float
    high: float
    p: float
    rows: int
    interval: str
    """Method of the interval."""


@dataclass(frozen=True)
class Measured:
    """All statistics of one model's answers to one task, in one matrix."""

    statistics: tuple[Statistic, ...]
    rows: Array
    """Numbers per row, float64 [rows, columns of all statistics]."""
    segmentation: Mapping[str, str] = field(default_factory=dict)
    """Word segmentation by metric, for metrics that compare words."""
    blind: Mapping[str, int] = field(default_factory=dict)
    """Number of rows in which a metric finds no words, by metric; only positive counts."""

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """The columns of each statistic, by name."""
        ends = np.cumsum([len(statistic.rows[0]) for statistic in self.statistics]).tolist()
        return {s.name: slice(end - len(s.rows[0]), end) for s, end in zip(self.statistics, ends, strict=True)}

    def values(self, sums: Array) -> dict[str, Array]:
        """Values [...] of every statistic from SUMS [..., columns], by name."""
        return {statistic.name: statistic.value(sums[..., self.slices[statistic.name]]) for statistic in self.statistics}

    def scores(self, settings: Statistics) -> dict[str, Score]:
        """Every value with its confidence interval, by name."""
        values = self.values(self.rows.sum(0))
        resampled = self.values(bootstrap_sums(self.rows, settings.resamples, settings.seed))
        found = {}
        for name, value in values.items():
            flags = self.flags(name)
            if flags is None:
                found[name] = Score(float(value), *interval(resampled[name], settings.confidence), len(self.rows), BOOTSTRAP)
            else:
                low, high = interval_of_proportion(int(flags.sum()), len(flags), settings.confidence)
                found[name] = Score(float(value), low, high, len(self.rows), PROPORTION)
        return found

    def flags(self, name: str) -> Array | None:
        """The 0/1 flags [rows] behind a proportion; None if the value is not a proportion."""
        statistic = next(one for one in self.statistics if one.name == name)
        numbers = self.rows[:, self.slices[name].start]
        return numbers.astype(bool) if statistic.bounded and bool(np.isin(numbers, (0.0, 1.0)).all()) else None

    def differences(self, other: "Measured", settings: Statistics) -> dict[str, Difference]:
        """Differences (ours minus theirs) of all common values, by name; both must have the same rows in the same order."""
        sums = [bootstrap_sums(one.rows, settings.resamples, settings.seed) for one in (self, other)]
        ours, theirs = self.values(sums[0]), other.values(sums[1])
        mine, yours = self.values(self.rows.sum(0)), other.values(other.rows.sum(0))
        permuted, exact = self._permuted(other, settings)
        found = {}
        for number, name in enumerate(mine):
            apart = float(mine[name] - yours[name])
            flags, others = self.flags(name), other.flags(name)
            if flags is None or others is None:
                (low, high), how = interval(ours[name] - theirs[name], settings.confidence), PAIRED_BOOTSTRAP
            else:
                only_ours, only_theirs = int((flags & ~others).sum()), int((others & ~flags).sum())
                (low, high), how = interval_of_difference(only_ours, only_theirs, len(flags), settings.confidence), PAIRED
            chance = p_value(apart, permuted[:, number], exact)
            found[name] = Difference(float(mine[name]), float(yours[name]), apart, low, high, chance, len(self.rows), how)
        return found

    def _permuted(self, other: "Measured", settings: Statistics) -> tuple[Array, bool]:
        def difference(mine: Array, yours: Array) -> Array:
            ours, theirs = self.values(mine), other.values(yours)
            return np.stack([ours[name] - theirs[name] for name in ours], axis=-1)

        return permutation_differences(self.rows, other.rows, settings.resamples, settings.seed, difference)


def measure(predictions: Sequence[Prediction], metrics: Sequence[AnyMetric], path: Path) -> Measured:
    """METRICS of PREDICTIONS; PATH locates errors; raises UserError if a metric needs something that the predictions lack."""
    # A held-out row has no answer: only its likelihood can be measured.
    asked = all(prediction.answer is not None for prediction in predictions)
    chosen = list(metrics) if asked else [Perplexity()]
    found: dict[str, Statistic] = {}
    segmentation: dict[str, str] = {}
    blind: dict[str, int] = {}
    for metric in chosen:
        _refuse_lack(metric, predictions, path)
        for statistic in metric.measure(predictions):
            if statistic.name in found:
                hint = "list each metric once; two settings of one metric need two experiments"
                raise UserError(f"two metrics both produce '{statistic.name}'", hint=hint)
            found[statistic.name] = statistic
        if how := getattr(metric, "segmentation", None):
            segmentation[metric.kind] = how
        if (rows := getattr(metric, "blind", None)) and (count := rows(predictions)):
            blind[metric.kind] = count
    matrix = np.concatenate([np.asarray(statistic.rows, np.float64) for statistic in found.values()], axis=1)
    return Measured(tuple(found.values()), matrix, segmentation, blind)


def _refuse_lack(metric: Any, predictions: Sequence[Prediction], path: Path) -> None:
    for number, prediction in enumerate(predictions, 1):
        line = Location(str(path), number)
        if metric.needs_reference and prediction.reference is None:
            hint = "remove it from evaluation.metrics, or give every test row a completion"
            raise UserError(
                f"metric '{metric.kind}' needs references, and row {prediction.id} of task '{prediction.task}' has none", line, hint
            )
        if getattr(metric, "needs_likelihood", False) and prediction.loss is None:
            hint = "build the predict step with likelihood = true, which evaluation.metrics sets if a metric needs it"
            raise UserError(f"metric '{metric.kind}' needs likelihoods, and row {prediction.id} has none", line, hint)
