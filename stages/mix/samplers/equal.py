"""The same number of rows from every task."""

from collections.abc import Mapping
from typing import Literal

from stages.mix.samplers.sizes import Phase, Shares, Size


class Equal(Shares):
    """The same number of rows from every task: the smaller ones are repeated up to the largest."""

    kind: Literal["equal"] = "equal"

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """Rows of each task in an epoch, before caps."""
        return dict.fromkeys(tasks, max(size.rows for size in tasks.values()))
