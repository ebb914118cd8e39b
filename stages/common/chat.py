"""A chat template splits into turns: through its generation blocks, or by comparing renderings turn by turn, verified per row."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import Location, UserError
from stages.common.chat_templates import BEGIN, END, ChatTemplate
from stages.common.ends import end_behind
from stages.common.rows import Message, Row
from stages.common.taught import with_variables
from stages.common.text import shorten
from stages.common.turns import Rendered, Turn

if TYPE_CHECKING:
    from stages.common.encoder import Encoder
    from stages.common.formats.chat import Chat

_ASKED = {"role": "user", "content": "Qprobe"}
_ANSWERED = {"role": "assistant", "content": "Aprobe"}
_SPACE = re.compile(r"\s*")


class ChatRenderer:
    """Renders rows through one chat template."""

    starts = False
    """A template writes the begin-of-sequence token itself, where one is wanted."""

    def __init__(self, chat: "Chat", encoder: "Encoder", source: str, name: str) -> None:
        self.served_template = with_variables(source, chat.variables)
        """The chat template that renders as this does, wherever the model is served."""
        self._template = ChatTemplate(source, name, {**encoder.names, **chat.variables}, chat.date)
        self._eos = encoder.eos
        self._added = sorted({encoder.eos, *encoder.added}, key=len, reverse=True)
        self.end = ""
        """The token that the template puts behind an answer; empty where it puts none."""
        self._prompt, self._header = "", ""
        self._probe()

    def _probe(self) -> None:
        """What the template puts around an answer: learned from the shortest chat there is."""
        where = Location(self._template.name)
        whole = _without_marks(self._template.render([_ASKED, _ANSWERED], (), where))
        asked = _without_marks(self._template.render([_ASKED], (), where))
        prompt = _without_marks(self._template.render([_ASKED], (), where, prompt=True))
        answer = whole.find(_ANSWERED["content"], max(whole.find(_ASKED["content"]), 0))
        if answer < 0:
            raise UserError(f"{self._template.name} leaves out what the assistant says", where)
        if whole.startswith(prompt):
            self._header = whole[len(prompt) : answer]
        if whole.startswith(asked) and prompt.startswith(asked):
            self._prompt = prompt[len(asked) :]
        self.end = self._token_at(whole, answer + len(_ANSWERED["content"])) or ""

    def _token_at(self, text: str, position: int) -> str | None:
        """The added token that stands at POSITION, white space before it aside."""
        return end_behind(text, position, self._added)

    def render(self, row: Row) -> Rendered:
        """The turns of ROW; raises UserError, located at the row, where the template refuses it or its answers cannot be found."""
        messages = row.conversation()
        marked = self._template.render(messages, row.tools, row.where)
        if BEGIN in marked or END in marked:
            return self._by_marks(row, messages, marked)
        return self._by_prefixes(row, messages, marked)

    def _by_marks(self, row: Row, messages: Sequence[Message], marked: str) -> Rendered:
        """The turns between the marks of generation blocks."""
        outside, *blocks = marked.split(BEGIN)
        answers = [message for message in messages if message["role"] == "assistant"]
        if len(blocks) != len(answers) or END in outside or any(block.count(END) != 1 for block in blocks):
            what = f"the chat template marks {len(blocks)} stretches of this row as generated, and it has {len(answers)} assistant messages"
            raise UserError(what, row.where, "{% generation %} is to stand once around each assistant message")
        turns: list[Turn] = []
        before = outside
        for block, message in zip(blocks, answers, strict=True):
            said, _, rest = block.partition(END)
            turn, before = self._turn(before, said, rest, message)
            turns.append(turn)
        return Rendered(tuple(turns), before)

    def _turn(self, before: str, said: str, rest: str, message: Message) -> tuple[Turn, str]:
        """The turn in which the template says SAID, REST following, and what follows the turn's end."""
        # What the model is given when it is asked is not its to say, even where a block begins a line too early.
        given = _overlap(before, said, self._prompt)
        before, said = before + said[:given], said[given:]
        answer, end, left = self._close(said, rest)
        return Turn(before, answer, end, message.get("train", True)), left

    def _close(self, said: str, rest: str) -> tuple[str, str | None, str]:
        """The answer, the end of its turn, and what follows it."""
        # A template that ends no last answer may still end earlier ones, before the next message.
        for token in dict.fromkeys((self.end, self._eos)):
            if token and (position := said.rfind(token)) >= 0 and not said[position + len(token) :].strip():
                # An answer that brought its own end is not ended twice.
                spaced = rest[_spaced(rest, 0) :]
                left = spaced.removeprefix(token) if spaced.startswith(token) else rest
                return said[:position].removesuffix(token), token, said[position + len(token) :] + left
            if token and rest.startswith(token, start := _spaced(rest, 0)):
                cut = start + len(token)
                return said, rest[:cut], rest[cut:]
        return said, None, rest

    def _by_prefixes(self, row: Row, messages: Sequence[Message], whole: str) -> Rendered:
        """The turns where each rendering of the messages before an answer must be a prefix of the whole."""
        turns: list[Turn] = []
        done = 0
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            start = self._start(row, messages[:number], whole)
            stop = self._stop(row, messages[: number + 1], whole, start)
            if start < done:
                raise self._unfaithful(row, number, "runs into the one before")
            answer, end, left = self._close(whole[start:stop], whole[stop:])
            turns.append(Turn(whole[done:start], answer, end, message.get("train", True)))
            done = len(whole) - len(left)
        return Rendered(tuple(turns), whole[done:])

    def _start(self, row: Row, messages: Sequence[Message], whole: str) -> int:
        """Where the answer to MESSAGES begins in the WHOLE text."""
        prompt = self._template.render(messages, row.tools, row.where, prompt=True)
        if not whole.startswith(prompt):
            raise self._unfaithful(row, len(messages), "is written otherwise when more messages follow")
        header = self._header.strip()
        return len(prompt) + len(self._header) if header and whole.startswith(self._header, len(prompt)) else len(prompt)

    def _stop(self, row: Row, messages: Sequence[Message], whole: str, start: int) -> int:
        """Where the last of MESSAGES, which begins at START, ends in the WHOLE text: behind its content, or behind all that it brings."""
        content = messages[-1]["content"] or ""
        if content.strip() and not messages[-1].get("tool_calls"):
            for text in (content, content.strip()):
                for position in range(start, _spaced(whole, start) + 1):
                    if whole.startswith(text, position):
                        return position + len(text)
        prefix = self._template.render(messages, row.tools, row.where)
        if not whole.startswith(prefix) or len(prefix) < start:
            raise self._unfaithful(row, len(messages) - 1, "is written otherwise when more messages follow")
        return len(prefix)

    def _unfaithful(self, row: Row, number: int, why: str) -> UserError:
        hint = "mark what the assistant says with {% generation %} ... {% endgeneration %} in a template of the spec's own"
        content = shorten(str(row.conversation()[min(number, len(row.conversation()) - 1)]["content"]))
        return UserError(f"{self._template.name} cannot be told apart turn by turn: messages[{number}] ({content}) {why}", row.where, hint)


def _spaced(text: str, position: int) -> int:
    """POSITION, or behind the white space that stands there."""
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _overlap(before: str, said: str, prompt: str) -> int:
    """How many characters at the beginning of SAID complete PROMPT, which BEFORE ends with a part of."""
    for length in range(len(prompt), 0, -1):
        if before.endswith(prompt[:length]):
            rest = prompt[length:]
            return len(rest) if said.startswith(rest) else 0
    return 0


def _without_marks(text: str) -> str:
    return text.replace(BEGIN, "").replace(END, "")
