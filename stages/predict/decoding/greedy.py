"""Greedy decoding."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from engine.core.part import Part

if TYPE_CHECKING:
    from transformers import LogitsProcessor


class Greedy(Part):
    """Greedy decoding: the most likely token at each step, so answers are deterministic."""

    kind: Literal["greedy"] = "greedy"

    def processors(self, rows: Sequence[str]) -> "list[LogitsProcessor]":
        """The logits processors: none."""
        return []
