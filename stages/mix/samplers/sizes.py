"""What samplers have in common: the sizes of tasks that they start from, and upsampling and caps by task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from engine.core.part import Name, Part, recipe

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Size:
    """What a task has to give."""

    rows: int
    tokens: int
    supervised_tokens: int

    def of(self, unit: str) -> int:
        """How much it has of `rows`, `tokens` or `supervised_tokens`."""
        amounts = {"rows": self.rows, "tokens": self.tokens, "supervised_tokens": self.supervised_tokens}
        return amounts[unit]

    def scaled(self, rows: int) -> "Size":
        """A task of ROWS rows that are like this one's."""
        factor = rows / self.rows
        return Size(rows, round(self.tokens * factor), round(self.supervised_tokens * factor))


Phase = dict[str, int]
"""How many rows each task gives to a part of an epoch; a task that is not named gives none."""


class Shares(Part):
    """A sampler whose epoch is one shuffled phase."""

    upsampling: dict[Name, Positive] = recipe({}, "Tasks that count as so many times their rows; 2 shows each row twice an epoch.")
    caps: dict[Name, Annotated[int, Field(gt=0)]] = recipe({}, "The most rows that a task gives to an epoch, after upsampling.")

    def named_tasks(self) -> set[str]:
        """The tasks that this sampler names."""
        return {*self.upsampling, *self.caps}

    def phases(self, tasks: Mapping[str, Size]) -> tuple[Phase, ...]:
        """How many rows each task gives to each phase of an epoch, from what it has."""
        return (self._capped(self.rows_per_epoch({name: self._upsampled(name, size) for name, size in tasks.items()})),)

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """How many rows each task gives to an epoch, before caps."""
        raise AssertionError(f"{type(self).__name__} gives no rows")

    def _upsampled(self, name: str, size: Size) -> Size:
        return size.scaled(max(1, round(size.rows * self.upsampling[name]))) if name in self.upsampling else size

    def _capped(self, rows: Phase) -> Phase:
        return {name: min(count, self.caps.get(name, count)) for name, count in rows.items()}


def divided(total: float, weights: Mapping[str, float]) -> Phase:
    """TOTAL rows in the proportion of WEIGHTS, rounded, at least one for each task."""
    whole = sum(weights.values())
    return {name: max(1, round(total * weight / whole)) for name, weight in weights.items()}
