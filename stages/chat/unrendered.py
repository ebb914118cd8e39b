"""Finds parts of a row's messages that are missing from its rendering: templates silently drop what they do not support."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.core.errors import Location, UserError
from stages.rows.messages import REASONING, Message, calls_of, inline_reasoning, reasoning_of, same_json
from stages.rows.turns import BREAK, Rendered

if TYPE_CHECKING:
    from stages.rows.rows import Row

_DECODER = json.JSONDecoder()


class Stretch:
    """A stretch of rendered text; each match is consumed, so that nothing matches twice."""

    def __init__(self, text: str) -> None:
        self.text = text

    def take(self, said: str) -> bool:
        """Whether the text contains SAID, ignoring white space, which templates trim and add; consumes the match."""
        if not said.strip():
            return True
        if said in self.text:
            self.text = self.text.replace(said, "\0", 1)
            return True
        wanted = "".join(said.split())
        squeezed = "".join(self.text.split())
        if wanted not in squeezed:
            return False
        self.text = squeezed.replace(wanted, "\0", 1)
        return True

    def take_arguments(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the text contains ARGUMENTS, as a JSON object or one by one, but not as a Python repr; consumes the match."""
        for start, end in _objects(self.text):
            if same_json(_DECODER.raw_decode(self.text, start)[0], arguments):
                self.text = f"{self.text[:start]}\0{self.text[end:]}"
                return True
        if not arguments:
            return True
        # JSON within a string literal: the template quoted the object again.
        if json.dumps(json.dumps(arguments, ensure_ascii=False), ensure_ascii=False)[1:-1] in self.text or repr(arguments) in self.text:
            return False
        return all(self.take(name) and self._take_value(value) for name, value in arguments.items())

    def _take_value(self, value: Any) -> bool:
        if isinstance(value, str):
            return self.take(value) or self.take(json.dumps(value, ensure_ascii=False)[1:-1]) or self.take(json.dumps(value)[1:-1])
        return self.take(json.dumps(value, ensure_ascii=False)) or self.take(json.dumps(value))


def holds_arguments(text: str, arguments: Mapping[str, Any]) -> bool:
    """Whether TEXT contains the ARGUMENTS of a call."""
    return Stretch(text).take_arguments(arguments)


def unrendered(row: "Row", rendered: Rendered, learned: Sequence[bool], render: "Callable[[Row], Rendered]") -> list[str]:
    """Parts of ROW that its rendering omits, as sorted names such as `reasoning` and `tool calls`; empty if it is complete.

    A supervised assistant message must appear in its turn with content, reasoning, and name and arguments of each call. An earlier answer
    that is only context needs no reasoning, which templates drop on purpose. Other messages and the tools' names must appear in the text
    around the answers. LEARNED has one flag per turn.

    Short texts may match by chance. If a row has any, RENDER renders it again with a marker character in each text, and the markers must
    appear too; if the markers change the rest of the rendering, they are ignored.
    """
    by_marks = _by_marks(row, rendered, learned, render) if _may_stand_by_chance(row) else None
    found = _by_text(row, rendered, learned, shortest=0 if by_marks is None else _SHORT)
    # Sorted, because rows are counted by what they lack.
    return sorted({*found, *(by_marks or [])})


def refusal(row: "Row", lacking: Sequence[str], form: str, may_unroll: bool) -> tuple[str, Location, str]:
    """Message, location and hint for ROW, whose rendering omits LACKING; FORM is the format's kind."""
    writer = "the chat template" if form == "chat" else f"the {form} format"
    ways = ['set tokenization.unrendered = "drop" to drop such rows, or "allow" to train on the rest']
    if may_unroll and "reasoning" in lacking and sum(message["role"] == "assistant" for message in row.conversation()) > 1:
        ways.insert(
            0, 'set tokenization.mask = { kind = "assistant", unroll = "auto" } if the template only omits the reasoning of earlier turns'
        )
    elif form != "chat":
        ways.insert(0, 'use a chat template that renders it: tokenization.format = { kind = "chat", ... }')
    else:
        ways.insert(0, "use a template that renders it")
    return f"{writer} omits part of row {row.id}: {', '.join(lacking)}", row.where, "; or ".join(ways)


def _stretches(row: "Row", rendered: Rendered, learned: Sequence[bool]) -> tuple[str, list[tuple[Message, str | None, bool]]]:
    """The text around the answers, and each assistant message with its turn's text (None: in the context) and whether it is supervised."""
    answers = [message for message in row.conversation() if message["role"] == "assistant"]
    texts: list[str | None] = [turn.answer + (turn.end or "") for turn in rendered.turns]
    if len(answers) != len(texts):
        # A row with a single turn has the earlier answers in its context.
        texts = [*[None] * (len(answers) - 1), texts[-1]]
        learned = [*[False] * (len(answers) - 1), learned[-1]]
    context = "\0".join([*(turn.before for turn in rendered.turns), rendered.after]).replace(BREAK, "")
    return context, list(zip(answers, texts, learned, strict=True))


def _by_text(row: "Row", rendered: Rendered, learned: Sequence[bool], shortest: int) -> Iterator[str]:
    """Names of parts not found as text; texts shorter than SHORTEST characters are left to the markers."""
    around, answers = _stretches(row, rendered, learned)
    context = Stretch(around)
    for message, text, is_learned in answers:
        yield from _lacking(message, context if text is None else Stretch(text), is_learned, row.where, shortest)
    others = [message for message in row.conversation() if message["role"] != "assistant"]
    # Longest first, so that a short text does not consume part of a long one.
    for message in sorted(others, key=lambda one: -len(one["content"])):
        said = message["content"].replace(BREAK, "")
        if len(said.strip()) >= shortest and not context.take(said):
            yield _name(message)
    for tool in row.tools:
        inner = tool.get("function", tool)
        if isinstance(inner, Mapping) and isinstance(inner.get("name"), str) and not context.take(inner["name"]):
            yield "tools"


def _name(message: Message) -> str:
    return "system prompt" if message["role"] == "system" else f"{message['role']} message"


_SHORT = 8
_FIRST_MARK = 0xF0100


def _may_stand_by_chance(row: "Row") -> bool:
    messages = row.conversation()
    return any(
        message.get("tool_calls") or reasoning_of(message) or len((message["content"] or "").strip()) < _SHORT for message in messages
    )


def _by_marks(row: "Row", rendered: Rendered, learned: Sequence[bool], render: "Callable[[Row], Rendered]") -> list[str] | None:
    """Names of parts not found when each text of ROW contains a marker; None if the markers change the rest of the rendering."""
    marks: dict[str, str] = {}

    def marked(text: str, name: str) -> str:
        if not text.strip():
            return text
        mark = chr(_FIRST_MARK + len(marks))
        marks[mark] = name
        place = _inside(text)
        return text[:place] + mark + text[place:]

    messages = []
    # The markers of each message, in order.
    owned: list[list[str]] = []
    for message in row.conversation():
        first = len(marks)
        content = message["content"] or ""
        said = inline_reasoning(content)[1] if message["role"] == "assistant" else content
        changed = {**message, "content": content.removesuffix(said) + marked(said, "content")}
        changed |= {key: marked(message[key], "reasoning") for key in [key for key in REASONING if message.get(key)][:1]}
        if message.get("tool_calls"):
            changed["tool_calls"] = [_marked_call(call, marked) for call in message["tool_calls"]]
        messages.append(changed)
        owned.append(list(marks)[first:])
    if any(mark in text for mark in marks for turn in rendered.turns for text in (turn.before, turn.answer)):
        return None
    try:
        again = render(replace(row, messages=tuple(messages)))
    except UserError:
        return None
    removed = dict.fromkeys(map(ord, marks))
    unmarked = [(turn.before.translate(removed), turn.answer.translate(removed)) for turn in again.turns]
    if unmarked != [(turn.before, turn.answer) for turn in rendered.turns]:
        return None
    around, answers = _stretches(replace(row, messages=tuple(messages)), again, learned)
    turns = iter(answers)
    found = []
    for message, own in zip(messages, owned, strict=True):
        if message["role"] != "assistant":
            found += [_name(message) for mark in own if mark not in around]
            continue
        _, text, is_learned = next(turns)
        stretch = around if text is None else text
        found += [marks[mark] for mark in own if (is_learned or marks[mark] != "reasoning") and mark not in stretch]
    return found


def _inside(text: str) -> int:
    """An offset near the middle of TEXT, outside tags and where no trimming happens."""
    end = len(text.rstrip())
    place = max(end // 2, len(text) - len(text.lstrip()) + 1)
    opened = text.rfind("<", 0, place)
    if opened > text.rfind(">", 0, place) and (closed := text.find(">", place)) >= 0:
        place = closed + 1
    return min(place, end)


def _marked_call(call: Mapping[str, Any], marked: Callable[[str, str], str]) -> dict[str, Any]:
    inner = call.get("function", call)
    changed = {**inner, "name": marked(inner["name"], "tool calls")}
    return changed if inner is call else {**call, "function": changed}


def _lacking(message: Message, stretch: Stretch, learned: bool, where: Location, shortest: int) -> Iterator[str]:
    inline, content = inline_reasoning(message["content"] or "")
    # Calls first: a short content may occur within their JSON.
    for call in calls_of(message, where):
        if not stretch.take_arguments(call.arguments) or (len(call.name) >= shortest and not stretch.take(call.name)):
            yield "tool calls"
    texts = [("content", content), *(("reasoning", one) for one in (reasoning_of(message), inline) if learned)]
    for name, said in sorted(texts, key=lambda item: -len(item[1])):
        if len(said.strip()) >= shortest and not stretch.take(said):
            yield name


def _objects(text: str) -> Iterator[tuple[int, int]]:
    """Start and end offsets of each JSON object in TEXT, including nested ones."""
    start = text.find("{")
    while start >= 0:
        with suppress(ValueError, RecursionError):
            yield start, _DECODER.raw_decode(text, start)[1]
        start = text.find("{", start + 1)
