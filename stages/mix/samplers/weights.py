"""Shares given by hand."""

from collections.abc import Mapping
from typing import Literal

from engine.core.part import Name, recipe
from stages.mix.samplers.sizes import Phase, Positive, Shares, Size, divided


class Weights(Shares):
    """Shares given by hand, one weight for each task of the mixture, of rows, tokens or supervised tokens."""

    kind: Literal["weights"] = "weights"
    weights: dict[Name, Positive] = recipe(description="Relative share of each task.", min_length=1)
    by: Literal["rows", "tokens", "supervised_tokens"] = recipe("rows", "What the weights are shares of.")

    def named_tasks(self) -> set[str]:
        """The tasks that this sampler names."""
        return super().named_tasks() | set(self.weights)

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """How many rows each task gives to an epoch of as many rows as all tasks have together, before caps."""
        # Rows per unit: a task with long rows needs fewer of them for the same share of tokens.
        shares = {name: self.weights[name] * size.rows / max(1, size.of(self.by)) for name, size in tasks.items()}
        return divided(sum(size.rows for size in tasks.values()), shares)
