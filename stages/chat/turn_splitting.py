"""Splits a rendered conversation into turns: at generation blocks, or by comparing the renderings of its prefixes, verified per row."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from engine.core.errors import Location, UserError
from stages.chat.presentation import ANSWERED, ASKED, CALLED, CALLED_LAST, RETURNED, Presentation, probe
from stages.chat.taught import with_variables
from stages.chat.templates import BEGIN, END, ChatTemplate, Rewritten
from stages.rows.messages import Call, calls_in, reasoning_of
from stages.rows.rows import Message, Row
from stages.rows.text import shorten
from stages.rows.turns import Rendered, Turn
from stages.tokens.ends import end_behind

if TYPE_CHECKING:
    from stages.chat.formats.chat import Chat
    from stages.tokens.encoder import Encoder

_SPACE = re.compile(r"\s*")
_RESERVED = re.compile(f"[{BEGIN}{END}]")


class ChatRenderer:
    """Renders rows through one chat template."""

    starts = False
    """Empty: a template writes the begin-of-sequence token itself."""

    def __init__(self, chat: "Chat", encoder: "Encoder", source: str, name: str) -> None:
        self.served_template = with_variables(source, chat.variables)
        """The chat template with its variables as defaults, for serving."""
        self._template = ChatTemplate(source, name, {**encoder.names, **chat.variables}, chat.date)
        self._eos = encoder.eos
        self._added = sorted({encoder.eos, *encoder.added}, key=len, reverse=True)
        self.end = ""
        """Text of the token that the template writes after an answer; empty if none."""
        self._prompt, self._header = "", ""
        self._probe()

    def _probe(self) -> None:
        """Find what the template writes around an answer, from a minimal chat."""
        where = Location(self._template.name)
        whole = _without_marks(self._template.render([ASKED, ANSWERED], (), where))
        asked = _without_marks(self._template.render([ASKED], (), where))
        prompt = _without_marks(self._template.render([ASKED], (), where, prompt=True))
        answer = whole.find(ANSWERED["content"], max(whole.find(ASKED["content"]), 0))
        if answer < 0:
            raise UserError(f"{self._template.name} omits the assistant's messages", where)
        if whole.startswith(prompt):
            self._header = whole[len(prompt) : answer]
        if whole.startswith(asked) and prompt.startswith(asked):
            self._prompt = prompt[len(asked) :]
        self.end = self._token_at(whole, answer + len(ANSWERED["content"])) or ""

    def _token_at(self, text: str, position: int) -> str | None:
        """The added token at POSITION, after optional white space; None if there is none."""
        return end_behind(text, position, self._added)

    @cached_property
    def presentation(self) -> Presentation:
        """The message form that the template expects for tool calls and reasoning."""
        where = Location(self._template.name)
        return probe(lambda messages, tools: _without_marks(self._template.render(messages, tools, where)))

    @cached_property
    def controls(self) -> frozenset[str]:
        """Added tokens that the template writes around messages of users and tools; special tokens are controls anyway."""
        where = Location(self._template.name)
        system: Message = {"role": "system", "content": "Sprobe"}
        asked, prompted = self._tried([system, ASKED]) or self._tried([ASKED]), self._tried([ASKED], prompt=True)
        call = self.presentation.present(CALLED, where)
        called, returned = (self._tried(messages).rpartition(CALLED_LAST)[2] for messages in ([ASKED, call], [ASKED, call, RETURNED]))
        # Tokens that the assistant writes, such as those around its calls, are not control tokens in other messages.
        written = self.end + asked + prompted + (returned.removeprefix(called) if called and returned.startswith(called) else "")
        # Line breaks and words among the added tokens are plain text.
        return frozenset(token for token in {*self._added, self.end} if token in written and token.strip() and not token.isalnum())

    def _tried(self, messages: Sequence[Message], prompt: bool = False) -> str:
        try:
            return _without_marks(self._template.render(messages, (), Location(self._template.name), prompt))
        except UserError:
            return ""

    def calls(self, answer: str) -> list[Call]:
        """Tool calls in ANSWER."""
        return calls_in(answer, self.presentation.calls)

    def split(self, answer: str) -> tuple[str, str]:
        """The reasoning of ANSWER, with its markup, and the text after it."""
        end = self.presentation.reasoning_end
        reasoning, found, said = answer.partition(end) if end else ("", "", "")
        return (reasoning + found, said.strip()) if found else ("", answer)

    def render(self, row: Row) -> Rendered:
        """The turns of ROW; raises UserError, located at the row, if the template fails on it or its answers cannot be found.

        Raises Rewritten if the template renders an answer differently once later messages follow.
        """
        messages = row.conversation()
        if any(_RESERVED.search(message["content"] or "") for message in messages):
            what = "this row contains U+F0000 or U+F0001, private-use characters that are reserved for marking answers"
            raise UserError(what, row.where, "remove them from the row")
        marked = self._text(messages, row)
        if BEGIN in marked or END in marked:
            return self._by_marks(row, messages, marked)
        return self._by_prefixes(row, messages, marked)

    def at(self, row: Row, number: int) -> Rendered:
        """ROW up to message NUMBER, an assistant message, as the model sees it at that point: only that answer is supervised.

        Raises UserError, located at the row, if the template fails on it.
        """
        part = row.up_to(number)
        try:
            found = self.render(part)
        except Rewritten:
            messages = part.conversation()
            marked = self._text(messages, part)
            start = self._start(part, messages[:-1], marked)
            stop = self._stop(part, messages, marked, start)
            answer, end, left = self._close(marked[start:stop], marked[stop:])
            found = Rendered((Turn(marked[:start], answer, end, messages[-1].get("train", True)),), left)
        *earlier, last = found.turns
        return found._replace(turns=(*(turn._replace(learned=False) for turn in earlier), last))

    def _text(self, messages: Sequence[Message], row: Row, prompt: bool = False) -> str:
        """The rendering of MESSAGES, a part of ROW's conversation."""
        plain = not any(message.get("tool_calls") or reasoning_of(message) for message in messages)
        presentation = Presentation() if plain else self.presentation
        return self._template.render([presentation.present(one, row.where) for one in messages], row.tools, row.where, prompt)

    def _by_marks(self, row: Row, messages: Sequence[Message], marked: str) -> Rendered:
        """The turns between the marks of generation blocks."""
        outside, *blocks = marked.split(BEGIN)
        answers = [message for message in messages if message["role"] == "assistant"]
        if len(blocks) != len(answers) or END in outside or any(block.count(END) != 1 for block in blocks):
            what = f"the chat template has {len(blocks)} generation blocks for this row, which has {len(answers)} assistant messages"
            raise UserError(what, row.where, "the template must put one {% generation %} block around each assistant message")
        turns: list[Turn] = []
        before = outside
        for block, message in zip(blocks, answers, strict=True):
            said, _, rest = block.partition(END)
            turn, before = self._turn(before, said, rest, message)
            turns.append(turn)
        return Rendered(tuple(turns), before)

    def _turn(self, before: str, said: str, rest: str, message: Message) -> tuple[Turn, str]:
        """The turn whose answer is SAID, followed by REST, and the text after the turn's end."""
        # The generation prompt is given to the model, so it is not supervised even if a block begins a line too early.
        given = _overlap(before, said, self._prompt)
        before, said = before + said[:given], said[given:]
        answer, end, left = self._close(said, rest)
        return Turn(before, answer, end, message.get("train", True)), left

    def _close(self, said: str, rest: str) -> tuple[str, str | None, str]:
        """The answer, the end of its turn, and the text after it."""
        # A template without an end after the last answer may still write one after earlier answers.
        for token in dict.fromkeys((self.end, self._eos)):
            if token and (position := said.rfind(token)) >= 0 and not said[position + len(token) :].strip():
                # An answer that contains its end token is not ended twice.
                spaced = rest[_spaced(rest, 0) :]
                left = spaced.removeprefix(token) if spaced.startswith(token) else rest
                return said[:position].removesuffix(token), token, said[position + len(token) :] + left
            if token and rest.startswith(token, start := _spaced(rest, 0)):
                cut = start + len(token)
                return said, rest[:cut], rest[cut:]
        return said, None, rest

    def _by_prefixes(self, row: Row, messages: Sequence[Message], whole: str) -> Rendered:
        """The turns by prefix renderings: the rendering up to each answer must be a prefix of the WHOLE text."""
        turns: list[Turn] = []
        done = 0
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            start = self._start(row, messages[:number], whole)
            stop = self._stop(row, messages[: number + 1], whole, start)
            if start < done:
                raise self._unfaithful(row, number, "overlaps the answer before it")
            answer, end, left = self._close(whole[start:stop], whole[stop:])
            turns.append(Turn(whole[done:start], answer, end, message.get("train", True)))
            done = len(whole) - len(left)
        return Rendered(tuple(turns), whole[done:])

    def _start(self, row: Row, messages: Sequence[Message], whole: str) -> int:
        """Offset in the WHOLE text at which the answer to MESSAGES begins."""
        prompt = self._text(messages, row, prompt=True)
        if not whole.startswith(prompt):
            raise self._unfaithful(row, len(messages), "renders differently once later messages follow")
        header = self._header.strip()
        return len(prompt) + len(self._header) if header and whole.startswith(self._header, len(prompt)) else len(prompt)

    def _stop(self, row: Row, messages: Sequence[Message], whole: str, start: int) -> int:
        """Offset in the WHOLE text at which the last of MESSAGES, which begins at START, ends: after its content, calls and reasoning."""
        content = messages[-1]["content"] or ""
        alone = None
        if content.strip() and not messages[-1].get("tool_calls"):
            begins = range(start, _spaced(whole, start) + 1)
            alone = next(
                (begin + len(text) for text in (content, content.strip()) for begin in begins if whole.startswith(text, begin)), None
            )
        if alone is not None and not reasoning_of(messages[-1]):
            return alone
        prefix = self._text(messages, row)
        if not whole.startswith(prefix) or len(prefix) < start:
            # A template that drops the reasoning of earlier turns keeps the content.
            if alone is not None:
                return alone
            raise self._unfaithful(row, len(messages) - 1, "renders differently once later messages follow")
        return len(prefix)

    def _unfaithful(self, row: Row, number: int, why: str) -> Rewritten:
        hint = 'set tokenization.mask = { kind = "assistant", unroll = "auto" }: each answer becomes a row, rendered as the model sees it; '
        hint += "or set tokenization.format.template_file, with {% generation %} ... {% endgeneration %} around the assistant's text"
        content = shorten(str(row.conversation()[min(number, len(row.conversation()) - 1)]["content"]))
        return Rewritten(f"{self._template.name} rewrites earlier messages: messages[{number}] ({content}) {why}", row.where, hint)


def _spaced(text: str, position: int) -> int:
    """POSITION, moved past white space."""
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _overlap(before: str, said: str, prompt: str) -> int:
    """Number of leading characters of SAID that complete PROMPT, if BEFORE ends with the first part of it."""
    for length in range(len(prompt), 0, -1):
        if before.endswith(prompt[:length]):
            rest = prompt[length:]
            return len(rest) if said.startswith(rest) else 0
    return 0


def _without_marks(text: str) -> str:
    return text.replace(BEGIN, "").replace(END, "")
