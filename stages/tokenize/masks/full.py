"""Supervise every token of the row: what pretraining does."""

from typing import Literal

from engine.part import Part


class Full(Part):
    """Prompt and completion are both learned."""

    kind: Literal["full"] = "full"

    def supervised_from(self, prompt_tokens: int) -> int:
        """Position of the first supervised token of a row whose prompt has PROMPT_TOKENS tokens."""
        return 0
