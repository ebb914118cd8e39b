"""Sampling with a seed per row, independent of order and batch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from engine.core.part import Part, recipe

if TYPE_CHECKING:
    from transformers import LogitsProcessor


class Sample(Part):
    """Sampling from the model's distribution; a row's draws depend only on the seed and the row's id."""

    kind: Literal["sample"] = "sample"
    seed: int = recipe(0, "Seed of the sampling.", ge=0, lt=2**63)
    temperature: float = recipe(1.0, "Temperature: below 1 sharpens the distribution, above 1 flattens it.", gt=0)
    top_k: int | None = recipe(None, "Sample only from this many most likely tokens.", gt=0)
    top_p: float | None = recipe(
        None, "Sample only from the most likely tokens whose probabilities sum to this (nucleus sampling).", gt=0, le=1
    )

    def processors(self, rows: Sequence[str]) -> "list[LogitsProcessor]":
        """The logits processors for a batch; ROWS are the ids of its rows, in order."""
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        from stages.predict.gumbel import GumbelNoise

        found: list[LogitsProcessor] = [TemperatureLogitsWarper(self.temperature)] if self.temperature != 1 else []
        if self.top_k is not None:
            found.append(TopKLogitsWarper(self.top_k))
        if self.top_p is not None:
            found.append(TopPLogitsWarper(self.top_p))
        return [*found, GumbelNoise(self.seed, rows)]
