"""A row as text: turns of an assistant's answers, each with what stands before it and what ends it."""

from typing import NamedTuple


class Turn(NamedTuple):
    """One answer, with all the text since the one before it."""

    before: str
    """System prompt, user's and tools' messages, and the markup up to where the assistant goes on; never learned as an answer."""
    answer: str
    end: str | None
    """The text of the end-of-turn token, with white space that stands before it; None: the tokenizer's end-of-sequence token is put."""
    learned: bool = True


class Rendered(NamedTuple):
    """The turns of a row, and what follows the last one."""

    turns: tuple[Turn, ...]
    after: str = ""
