"""The most likely token at each step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from engine.core.part import Part

if TYPE_CHECKING:
    from transformers import LogitsProcessor


class Greedy(Part):
    """Always the most likely token: the same model gives the same answers."""

    kind: Literal["greedy"] = "greedy"

    def processors(self, rows: Sequence[str]) -> "list[LogitsProcessor]":
        """What changes the scores before the highest is taken: nothing."""
        return []
