"""Rendered rows: turns with an assistant's answer, the text before it, and its end."""

from typing import NamedTuple

BREAK = "\U000f0002"
"""Splits the encoding of a rendered text, so that the text on both sides forms no control token; it never reaches a tokenizer."""


class Turn(NamedTuple):
    """One answer, with all text since the previous one."""

    before: str
    """System prompt, user and tool messages, and the header of the answer; never supervised as an answer."""
    answer: str
    end: str | None
    """Text of the end-of-turn token, with preceding white space; None: the tokenizer's end-of-sequence token."""
    learned: bool = True


class Rendered(NamedTuple):
    """The turns of a row, and the text after the last one."""

    turns: tuple[Turn, ...]
    after: str = ""
