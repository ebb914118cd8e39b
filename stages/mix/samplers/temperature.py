"""Temperature sampling: between proportional and equal shares, sizes capped (T5: Raffel et al., 2020, arXiv:1910.10683, section 3.5.2)."""

from collections.abc import Mapping
from typing import Literal

from engine.core.part import recipe
from stages.mix.samplers.sizes import Phase, Shares, Size, divided


class Temperature(Shares):
    """Shares proportional to min(rows, cap) ** (1 / temperature): 1 is proportional, higher is more equal."""

    kind: Literal["temperature"] = "temperature"
    temperature: float = recipe(2.0, "1: proportional to the (capped) numbers of rows; large: nearly equal.", ge=1)
    cap: int | None = recipe(None, "Maximum size of a task when shares are computed, so that a huge task does not dominate.", gt=0)

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """Rows of each task in an epoch with as many (capped) rows as all tasks together, before caps."""
        sizes = {name: min(size.rows, self.cap or size.rows) for name, size in tasks.items()}
        largest = max(sizes.values())
        # Relative to the largest size, for numerical precision.
        return divided(sum(sizes.values()), {name: (rows / largest) ** (1 / self.temperature) for name, rows in sizes.items()})
