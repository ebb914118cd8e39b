"""Common to samplers: sizes of tasks, upsampling and caps by task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from engine.core.part import Name, Part, recipe

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Size:
    """Size of a task."""

    rows: int
    tokens: int
    supervised_tokens: int

    def of(self, unit: str) -> int:
        """Its number of `rows`, `tokens` or `supervised_tokens`."""
        amounts = {"rows": self.rows, "tokens": self.tokens, "supervised_tokens": self.supervised_tokens}
        return amounts[unit]

    def scaled(self, rows: int) -> "Size":
        """The size of a task with ROWS rows of the same average length."""
        factor = rows / self.rows
        return Size(rows, round(self.tokens * factor), round(self.supervised_tokens * factor))


Phase = dict[str, int]
"""Rows of each task in a part of an epoch; none of other tasks."""


class Shares(Part):
    """A sampler whose epoch is one shuffled phase."""

    upsampling: dict[Name, Positive] = recipe({}, "Factors on the tasks' numbers of rows; 2 repeats each row twice per epoch.")
    caps: dict[Name, Annotated[int, Field(gt=0)]] = recipe({}, "Maximum rows of a task per epoch, after upsampling.")

    def named_tasks(self) -> set[str]:
        """The tasks that this sampler names."""
        return {*self.upsampling, *self.caps}

    def phases(self, tasks: Mapping[str, Size]) -> tuple[Phase, ...]:
        """Rows of each task in each phase of an epoch, from the tasks' sizes."""
        return (self._capped(self.rows_per_epoch({name: self._upsampled(name, size) for name, size in tasks.items()})),)

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """Rows of each task in an epoch, before caps."""
        raise AssertionError(f"{type(self).__name__} gives no rows")

    def _upsampled(self, name: str, size: Size) -> Size:
        return size.scaled(max(1, round(size.rows * self.upsampling[name]))) if name in self.upsampling else size

    def _capped(self, rows: Phase) -> Phase:
        return {name: min(count, self.caps.get(name, count)) for name, count in rows.items()}


def divided(total: float, weights: Mapping[str, float]) -> Phase:
    """TOTAL rows in proportion to WEIGHTS, rounded, at least one for each task."""
    whole = sum(weights.values())
    return {name: max(1, round(total * weight / whole)) for name, weight in weights.items()}
