"""Held-out rows that an export is asked, and what the trained model says to them."""

from collections.abc import Mapping
from dataclasses import dataclass

from stages.export.runtimes.base import Chat, Said


@dataclass(frozen=True)
class Question:
    """A held-out row: its prompt as token ids, as text, and as a client's conversation."""

    task: str
    id: str
    prompt: list[int]
    text: str | None
    """The rendered prompt; None if no client could send it: the row holds control tokens as text."""
    chat: Chat | None
    """None without a chat template, and where the text is None."""
    max_new_tokens: int


@dataclass(frozen=True)
class Asked:
    """A question, and what the trained model says."""

    question: Question
    said: Said
    before: Mapping[int, float]
    """Log-probabilities of the first token of the answer, by id."""
    after: Mapping[int, float]
    """Those of the token after the whole answer."""

    def __str__(self) -> str:
        return f"row {self.question.id} of task '{self.question.task}'"
