"""Every row of every task once an epoch."""

from typing import Literal

from engine.part import Part


class Proportional(Part):
    """Every row of every task once an epoch: a task's share is its number of rows."""

    kind: Literal["proportional"] = "proportional"

    def rows_per_epoch(self, rows: dict[str, int]) -> dict[str, int]:
        """How many rows each task gives to an epoch, from how many it has."""
        return dict(rows)
