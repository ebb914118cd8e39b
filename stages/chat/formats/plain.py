"""Fixed text around prompts and completions, for base models without a chat template."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.errors import UserError
from engine.core.part import Part, recipe
from stages.rows.messages import Call, calls_in
from stages.rows.turns import Rendered, Turn

if TYPE_CHECKING:
    from pathlib import Path

    from stages.rows.rows import Row
    from stages.tokens.encoder import Encoder

_PLACE = {name: re.compile(r"\{\{\s*" + name + r"\s*\}\}") for name in ("system", "prompt")}


class Plain(Part):
    """Fixed text around prompts; every answer ends with the tokenizer's end-of-sequence (EOS) token."""

    kind: Literal["plain"] = "plain"
    system: str = recipe("{{ system }}\n\n", "Jinja template of the system prompt, before the first prompt.")
    prompt: str = recipe("{{ prompt }}", "Jinja template of each prompt, up to where the completion starts.")
    between: str = recipe("", "Text between an answer and the next prompt, in rows of several turns.")
    start: Literal["tokenizer", "none"] = recipe(
        "tokenizer", "Tokens at the start of a row: those that the tokenizer adds, such as a begin-of-sequence (BOS) token, or none."
    )

    @model_validator(mode="after")
    def _one_place_each(self) -> Self:
        for name, place in _PLACE.items():
            if len(place.findall(getattr(self, name))) != 1:
                message = "{field} must contain {place} exactly once"
                context = {"field": f"format.{name}", "place": f"{{{{ {name} }}}}", "at": (name,)}
                raise PydanticCustomError("one_place", message, context)
        return self

    def renderer(self, encoder: "Encoder", template: "Path | None" = None) -> "PlainRenderer":
        """The renderer of rows in this format; TEMPLATE is unused."""
        return PlainRenderer(self)


class PlainRenderer:
    """Renders rows as fixed text around prompts."""

    end = ""
    """Empty: the tokenizer's end-of-sequence token ends an answer."""
    served_template = None
    """None: the format has no chat template to serve."""

    def __init__(self, plain: Plain) -> None:
        self.starts = plain.start == "tokenizer"
        self._between = plain.between
        self._system, self._prompt = (_PLACE[name].split(getattr(plain, name)) for name in ("system", "prompt"))

    controls: frozenset[str] = frozenset()
    """The format writes no tokens of its own; the tokenizer's special ones are control tokens anyway."""

    def calls(self, answer: str) -> list[Call]:
        """Tool calls in ANSWER, written as JSON."""
        return calls_in(answer)

    def split(self, answer: str) -> tuple[str, str]:
        """Empty reasoning, which this format does not support, and ANSWER."""
        return "", answer

    def at(self, row: "Row", number: int) -> Rendered:
        """ROW up to message NUMBER, an assistant message, as one turn: only that answer is supervised."""
        found = self.render(row.up_to(number))
        return found._replace(turns=(*(turn._replace(learned=False) for turn in found.turns[:-1]), found.turns[-1]))

    def render(self, row: "Row") -> Rendered:
        """The turns of ROW; raises UserError, located at the row, unless its messages alternate between user and assistant."""
        if not row.messages:
            return Rendered((Turn(self._before(row.system, row.prompt), row.completion, None),))
        return self._chat(row)

    def _before(self, system: str | None, prompt: str) -> str:
        asked = prompt.join(self._prompt)
        return asked if system is None else system.join(self._system) + asked

    def _chat(self, row: "Row") -> Rendered:
        messages: Sequence[Mapping[str, Any]] = row.messages
        system = messages[0]["content"] if messages[0]["role"] == "system" else None
        first = 0 if system is None else 1
        self._refuse_disorder(row, first)
        turns: list[Turn] = []
        for number in range(first, len(messages) - 1, 2):
            before = (
                self._between + self._before(None, messages[number]["content"])
                if turns
                else self._before(system, messages[first]["content"])
            )
            turns.append(Turn(before, messages[number + 1]["content"], None, messages[number + 1].get("train", True)))
        asked_last = (len(messages) - first) % 2
        return Rendered(tuple(turns), self._between + self._before(None, messages[-1]["content"]) if asked_last else "")

    def _refuse_disorder(self, row: "Row", first: int) -> None:
        for number, message in enumerate(row.messages[first:]):
            wanted = ("user", "assistant")[number % 2]
            if message["role"] != wanted or message["content"] is None or row.tools:
                what = f"messages[{first + number}] is of role {message['role']}, and the plain format expects {wanted} there"
                if row.tools or message["content"] is None or message["role"] == "tool":
                    what = "the plain format does not support tools, and this row has some"
                raise UserError(
                    f"roles out of order: {what}", row.where, 'use a chat template: tokenization.format = { kind = "chat", ... }'
                )
