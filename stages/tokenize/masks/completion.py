"""Supervise the completion and its end-of-sequence token, nothing of the prompt."""

from typing import Literal

from engine.part import Part


class Completion(Part):
    """Only the completion and its end-of-sequence token are learned."""

    kind: Literal["completion"] = "completion"

    def supervised_from(self, prompt_tokens: int) -> int:
        """Position of the first supervised token of a row whose prompt has PROMPT_TOKENS tokens."""
        return prompt_tokens
