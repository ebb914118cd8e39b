"""Tokens drawn by chance, with a seed of its own for each row, so that neither order nor batch decides what is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from engine.core.part import Part, recipe

if TYPE_CHECKING:
    from transformers import LogitsProcessor


class Sample(Part):
    """Tokens drawn in proportion to their likelihood; a row's draws depend on the seed and on the row's id alone."""

    kind: Literal["sample"] = "sample"
    seed: int = recipe(0, "Another seed draws other answers.", ge=0, lt=2**63)
    temperature: float = recipe(1.0, "Below 1 the likely tokens become likelier, above 1 less so.", gt=0)
    top_k: int | None = recipe(None, "Draw from this many most likely tokens only.", gt=0)
    top_p: float | None = recipe(None, "Draw from the most likely tokens that together reach this share only.", gt=0, le=1)

    def processors(self, rows: Sequence[str]) -> "list[LogitsProcessor]":
        """What changes the scores before the highest is taken; ROWS are the ids of the rows of a batch, in order."""
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        from stages.predict.gumbel import GumbelNoise

        found: list[LogitsProcessor] = [TemperatureLogitsWarper(self.temperature)] if self.temperature != 1 else []
        if self.top_k is not None:
            found.append(TopKLogitsWarper(self.top_k))
        if self.top_p is not None:
            found.append(TopPLogitsWarper(self.top_p))
        return [*found, GumbelNoise(self.seed, rows)]
