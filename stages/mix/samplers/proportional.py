"""Every row of every task once per epoch."""

from collections.abc import Mapping
from typing import Literal

from stages.mix.samplers.sizes import Phase, Shares, Size


class Proportional(Shares):
    """Every row of every task once per epoch: shares are proportional to numbers of rows."""

    kind: Literal["proportional"] = "proportional"

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """Rows of each task in an epoch, before caps."""
        return {name: size.rows for name, size in tasks.items()}
