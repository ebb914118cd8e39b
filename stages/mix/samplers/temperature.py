"""Shares between proportional and equal, by a temperature and a cap on sizes (T5: Raffel et al., 2020, arXiv:1910.10683, section 3.5.2)."""

from collections.abc import Mapping
from typing import Literal

from engine.core.part import recipe
from stages.mix.samplers.sizes import Phase, Shares, Size, divided


class Temperature(Shares):
    """Shares in proportion to min(rows, cap) ** (1 / temperature): 1 is proportional, and the higher it is, the more equal."""

    kind: Literal["temperature"] = "temperature"
    temperature: float = recipe(2.0, "1: proportional to the (capped) numbers of rows; large: nearly equal.", ge=1)
    cap: int | None = recipe(None, "A task counts as so many rows at most when shares are computed: a huge one does not take all.", gt=0)

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """How many rows each task gives to an epoch of as many (capped) rows as all tasks have together, before caps."""
        sizes = {name: min(size.rows, self.cap or size.rows) for name, size in tasks.items()}
        largest = max(sizes.values())
        # Relative to the largest: a power of a large number times a small one would lose digits.
        return divided(sum(sizes.values()), {name: (rows / largest) ** (1 / self.temperature) for name, rows in sizes.items()})
