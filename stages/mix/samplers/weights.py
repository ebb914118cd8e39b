"""Explicit shares."""

from collections.abc import Mapping
from typing import Literal

from engine.core.part import Name, recipe
from stages.mix.samplers.sizes import Phase, Positive, Shares, Size, divided


class Weights(Shares):
    """Explicit shares: one weight for each task of the mixture, of rows, tokens or supervised tokens."""

    kind: Literal["weights"] = "weights"
    weights: dict[Name, Positive] = recipe(description="Relative share of each task.", min_length=1)
    by: Literal["rows", "tokens", "supervised_tokens"] = recipe("rows", "The unit of the shares.")

    def named_tasks(self) -> set[str]:
        """The tasks that this sampler names."""
        return super().named_tasks() | set(self.weights)

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """Rows of each task in an epoch with as many rows as all tasks together, before caps."""
        # Rows per unit: a task with long rows needs fewer rows for the same share of tokens.
        shares = {name: self.weights[name] * size.rows / max(1, size.of(self.by)) for name, size in tasks.items()}
        return divided(sum(size.rows for size in tasks.values()), shares)
