"""Every row of every task once an epoch."""

from collections.abc import Mapping
from typing import Literal

from stages.mix.samplers.sizes import Phase, Shares, Size


class Proportional(Shares):
    """Every row of every task once an epoch: a task's share is its number of rows."""

    kind: Literal["proportional"] = "proportional"

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """How many rows each task gives to an epoch, before caps."""
        return {name: size.rows for name, size in tasks.items()}
