"""Control tokens in the text of messages, such as `<|im_end|>` in what a user writes: text that would steer the model.

A tokenizer finds them wherever they stand. Those that a row's own text brings are broken: BREAK is put inside, goes through the template
like any character, and is where the encoding cuts the text, so that neither part is the token. It never reaches a tokenizer.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from stages.rows.rows import Message, Row

BREAK = "\U000f0002"

ControlTokens = Literal["text", "refuse", "drop", "control"]
"""What happens to control tokens in the text of messages: they become text; the row is an error, or left out; they stay control tokens."""


class Breaker:
    """Finds, and breaks, the control tokens in what is said to the assistant: by users, by tools, and by the system prompt."""

    def __init__(self, tokens: Iterable[str]) -> None:
        # The longest first. A token of one character cannot be broken: no way of writing it is left. White space steers nothing.
        found = sorted({token for token in tokens if len(token) > 1 and token.strip()}, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, found))) if found else None

    def found(self, row: Row) -> list[str]:
        """The control tokens in ROW, in their order."""
        if self._pattern is None:
            return []
        texts = [row.system or "", row.prompt, *(message["content"] or "" for message in row.messages if message["role"] != "assistant")]
        return [token for text in texts for token in self._pattern.findall(text)]

    def broken(self, row: Row) -> Row:
        """ROW with its control tokens broken."""
        system = row.system if row.system is None else self._break(row.system)
        return replace(row, system=system, prompt=self._break(row.prompt), messages=tuple(map(self._message, row.messages)))

    def _message(self, message: Message) -> Message:
        return message if message["role"] == "assistant" else {**message, "content": self._break(message["content"])}

    def _break(self, text: str) -> str:
        assert self._pattern is not None
        # Overlapping tokens: what the pattern skips may still be one, so it looks again until nothing is left.
        while (broken := self._pattern.sub(lambda found: found[0][0] + BREAK + found[0][1:], text)) != text:
            text = broken
        return text
