"""The values of all metrics on one model's answers to one task, with intervals, and their differences from another model's."""

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
from stages.rows.predictions import Prediction
from stages.statistics.proportions import PAIRED, PROPORTION, interval_of_difference, interval_of_proportion
from stages.statistics.resampling import Array, bootstrap_sums, interval, p_value, permutation_differences

BOOTSTRAP, PAIRED_BOOTSTRAP = "percentile bootstrap", "paired percentile bootstrap"


@dataclass(frozen=True)
class Score:
    """One value, the interval around it, and the rows that it is taken over."""

    value: float
    low: float
    high: float
    rows: int
    interval: str
    """How low and high were found."""


@dataclass(frozen=True)
class Difference:
    """How one value of two models differs on the rows that both have answered."""

    value: float
    other_value: float
    difference: float
    low: float
    high: float
    p: float
    rows: int
    interval: str
    """How low and high were found."""


@dataclass(frozen=True)
class Measured:
    """The statistics of one model's answers to one task, side by side in one matrix."""

    statistics: tuple[Statistic, ...]
    rows: Array
    """Numbers of each row, [rows, columns of all statistics]."""
    segmentation: Mapping[str, str] = field(default_factory=dict)
    """How each metric that compares words cuts texts into them, by its name."""
    blind: Mapping[str, int] = field(default_factory=dict)
    """Rows that hold text which a metric cannot see, by its name, where there are such rows."""

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """The columns of each statistic, by its name."""
        ends = np.cumsum([len(statistic.rows[0]) for statistic in self.statistics]).tolist()
        return {s.name: slice(end - len(s.rows[0]), end) for s, end in zip(self.statistics, ends, strict=True)}

    def values(self, sums: Array) -> dict[str, Array]:
        """The value of every statistic from SUMS [..., columns]."""
        return {statistic.name: statistic.value(sums[..., self.slices[statistic.name]]) for statistic in self.statistics}

    def scores(self, settings: Statistics) -> dict[str, Score]:
        """Every value with its interval."""
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
        """Of which rows [rows] a value is the share, where it is one."""
        statistic = next(one for one in self.statistics if one.name == name)
        numbers = self.rows[:, self.slices[name].start]
        return numbers.astype(bool) if statistic.bounded and bool(np.isin(numbers, (0.0, 1.0)).all()) else None

    def differences(self, other: "Measured", settings: Statistics) -> dict[str, Difference]:
        """Every value that both have, ours minus theirs; the rows of both must be the same ones, in the same order."""
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
    """What METRICS say of PREDICTIONS; raises UserError where one of them lacks what it needs."""
    # A row that was only read has no answer: nothing but its likelihood can be measured.
    asked = all(prediction.answer is not None for prediction in predictions)
    chosen = list(metrics) if asked else [Perplexity()]
    found: dict[str, Statistic] = {}
    segmentation: dict[str, str] = {}
    blind: dict[str, int] = {}
    for metric in chosen:
        _refuse_lack(metric, predictions, path)
        for statistic in metric.measure(predictions):
            if statistic.name in found:
                hint = "name each metric once; two settings of one metric need two experiments"
                raise UserError(f"two metrics both give '{statistic.name}'", hint=hint)
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
            hint = "take it out of evaluation.metrics, or give every test row a completion"
            raise UserError(
                f"metric '{metric.kind}' needs references, and row {prediction.id} of task '{prediction.task}' has none", line, hint
            )
        if getattr(metric, "needs_likelihood", False) and prediction.loss is None:
            hint = "ask for it: likelihood = true of the predict step, which [evaluation] metrics sets where they need it"
            raise UserError(f"metric '{metric.kind}' needs likelihoods, and row {prediction.id} has none", line, hint)
