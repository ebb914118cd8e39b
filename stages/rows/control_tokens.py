"""Control tokens in the text of messages, such as `<|im_end|>` in a user message, which would act as markup (prompt injection).

A tokenizer recognises them anywhere in a text. Those in a row's text are broken: the character BREAK is inserted, passes through the
template, and the encoding splits the text there, so that neither part is the token. BREAK never reaches a tokenizer.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from stages.rows.turns import BREAK

if TYPE_CHECKING:
    from stages.rows.rows import Message, Row

ControlTokens = Literal["text", "refuse", "drop", "control"]
"""Policy for control tokens in the text of messages: encode as text, fail, drop the row, or keep as control tokens."""


class Breaker:
    """Finds and breaks control tokens in messages of users and tools and in system prompts."""

    def __init__(self, tokens: Iterable[str]) -> None:
        # Longest first. A single-character token cannot be broken. White space has no control effect.
        found = sorted({token for token in tokens if len(token) > 1 and token.strip()}, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, found))) if found else None

    def found(self, row: "Row") -> list[str]:
        """The control tokens in ROW, in order."""
        if self._pattern is None:
            return []
        texts = [row.system or "", row.prompt, *(message["content"] or "" for message in row.messages if message["role"] != "assistant")]
        return [token for text in texts for token in self._pattern.findall(text)]

    def broken(self, row: "Row") -> "Row":
        """ROW with its control tokens broken."""
        system = row.system if row.system is None else self._break(row.system)
        return replace(row, system=system, prompt=self._break(row.prompt), messages=tuple(map(self._message, row.messages)))

    def _message(self, message: "Message") -> "Message":
        return message if message["role"] == "assistant" else {**message, "content": self._break(message["content"])}

    def _break(self, text: str) -> str:
        assert self._pattern is not None
        # Overlapping tokens: skipped text may still contain one, so repeat until none is left.
        while (broken := self._pattern.sub(lambda found: found[0][0] + BREAK + found[0][1:], text)) != text:
            text = broken
        return text
