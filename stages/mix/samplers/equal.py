"""The same number of rows from every task."""

from typing import Literal

from engine.part import Part


class Equal(Part):
    """The same number of rows from every task: the smaller ones are repeated up to the largest."""

    kind: Literal["equal"] = "equal"

    def rows_per_epoch(self, rows: dict[str, int]) -> dict[str, int]:
        """How many rows each task gives to an epoch, from how many it has."""
        return dict.fromkeys(rows, max(rows.values()))
