"""Rows of a task in either shape, read with located errors: prompt and completion, or the messages of a chat.

The two shapes, one JSON object a line:
 1. `id`, `group`, `prompt`, `completion` and, where the task has one, `system`; `references` where several answers are right, of which
    `completion`, the first, is learned;
 2. `id`, `group`, `messages` (`role`, `content`, optionally `train` and whatever a chat template reads, such as `tool_calls`) and
    optionally `tools`. The last assistant message is the answer that an evaluation asks for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from engine.core.errors import Location, UserError, did_you_mean
from stages.rows.jsonl import read_objects, type_name
from stages.rows.messages import REASONING, Call, calls_of, inline_reasoning, reasoning_of
from stages.rows.text import is_well_formed

ROLES = ("system", "user", "assistant", "tool")

Message = Mapping[str, Any]
"""`role` and `content`, and whatever else a chat template reads; `train: false` keeps an assistant's message from being learned."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a task; `messages` is empty where the row is a prompt with its completion."""

    where: Location
    id: str
    group: str
    prompt: str = ""
    completion: str = ""
    system: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    references: tuple[str, ...] = ()
    """All answers that are right, where there are several; the first one is the completion."""
    answered: bool = True
    """Whether the row has an answer to learn or to compare with."""
    part_of: str | None = None
    """The id of the conversation that became several rows, of which this is one."""

    def conversation(self) -> tuple[Message, ...]:
        """The messages of the row, whatever its shape."""
        if self.messages:
            return self.messages
        system = ({"role": "system", "content": self.system},) if self.system is not None else ()
        return (*system, {"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.completion})

    @property
    def question(self) -> tuple[Message, ...]:
        """The messages before the answer that an evaluation asks for."""
        messages = self.conversation()
        return messages[: _last_answer(messages)]

    @property
    def asked(self) -> str:
        """What is asked, as text for people: the prompt, or what was said before the answer."""
        if not self.messages:
            return self.prompt
        return "\n\n".join(message["content"] for message in self.question if message["content"])

    @property
    def reference(self) -> str:
        """The answer that an evaluation compares with; empty where the assistant only calls tools."""
        if not self.messages:
            return self.completion
        return str(self.messages[_last_answer(self.messages)]["content"] or "")

    @property
    def reference_calls(self) -> list[Call]:
        """The calls of tools in the answer that an evaluation compares with; raises UserError where one is unreadable."""
        return calls_of(self.messages[_last_answer(self.messages)], self.where) if self.messages else []

    @property
    def characters(self) -> int:
        """About how long the row is, in characters."""
        return len(self.prompt) + len(self.completion) + sum(len(str(message["content"])) for message in self.messages)

    def is_well_formed(self) -> bool:
        """Whether every text of the row can be written as UTF-8."""
        if not self.messages:
            return is_well_formed("".join((self.prompt, self.completion, self.system or "", *self.references)))
        return _is_well_formed(self.messages) and _is_well_formed(self.tools)


def read_rows(path: Path, unanswered: bool = False) -> Iterator[Row]:
    """The rows of PATH; raises UserError, located at its line, for a row that has neither shape or whose roles are out of order.

    UNANSWERED: a prompt without a completion will do.
    """
    for where, found in read_objects(path):
        yield parse_row(found, where, unanswered)


def parse_row(found: Mapping[str, Any], where: Location, unanswered: bool = False) -> Row:
    """The row in a JSON object that was read at WHERE; raises UserError where it has neither shape."""
    identity, group = found.get("id", ""), found.get("group", "")
    if not isinstance(identity, str) or not isinstance(group, str):
        raise UserError("this row's id and group are no texts", where, "both are strings, as generate writes them")
    if "messages" not in found:
        if unanswered and found.get("completion") is None:
            return Row(where, identity, group, *_pair({**found, "completion": ""}, where), answered=False)
        return Row(where, identity, group, *_pair(found, where), references=_references(found, where))
    if clash := next((key for key in ("prompt", "completion", "system", "references") if key in found), None):
        raise UserError(f"this row has messages and a {clash}", where, "a row has either messages, or prompt and completion")
    return Row(where, identity, group, messages=_messages(found["messages"], where), tools=_tools(found.get("tools"), where))


def _pair(found: Mapping[str, Any], where: Location) -> tuple[str, str, str | None]:
    prompt, completion, system = found.get("prompt"), found.get("completion"), found.get("system")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise UserError("this row has no text under prompt and completion", where, "both are needed, as strings; or messages, as a list")
    if not isinstance(system, str | None):
        raise UserError(f"this row's system prompt is {type_name(system)}, not text", where)
    return prompt, completion, system


def _references(found: Mapping[str, Any], where: Location) -> tuple[str, ...]:
    given = found.get("references")
    if given is None:
        return ()
    if not isinstance(given, list) or not given or not all(isinstance(text, str) for text in given):
        raise UserError("this row's references are no list of texts", where, "leave the key out where a row has its completion alone")
    if found["completion"] not in given:
        raise UserError("this row's completion is none of its references", where, "the completion is the first of them")
    return tuple(given)


def without_reasoning(row: Row) -> tuple[Row, int]:
    """ROW without the assistant's reasoning, under its key or as `<think>` at the beginning of an answer; and of how many messages."""
    messages, count = [], 0
    for message in row.conversation():
        reasoning, content = inline_reasoning(message["content"] or "")
        if message["role"] == "assistant" and (reasoning or reasoning_of(message)):
            count += 1
            message = {key: value for key, value in message.items() if key not in REASONING} | ({"content": content} if reasoning else {})
        messages.append(message)
    return (replace(row, messages=tuple(messages)), count) if count else (row, 0)


def up_to(row: Row, number: int) -> Row:
    """ROW up to message NUMBER of its conversation."""
    messages = row.conversation()
    return row if number == len(messages) - 1 else replace(row, messages=messages[: number + 1])


def _messages(found: object, where: Location) -> tuple[Message, ...]:
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise UserError("messages is no list of messages", where, 'such as [{"role": "user", "content": "..."}, ...]')
    for number, message in enumerate(found):
        _check_message(message, number, where)
    for number, (before, message) in enumerate(zip(({"role": None}, *found), found, strict=False)):
        _check_order(before["role"], message["role"], number, where)
    if all(message["role"] != "assistant" for message in found):
        raise UserError("this chat has no assistant message", where, "there is nothing to learn from it, and nothing to compare with")
    return tuple(found)


def _check_message(message: Any, number: int, where: Location) -> None:
    name = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise UserError(f"{name} is {type_name(message)}, not an object with role and content", where)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise UserError(f"{name} has the role {role!r}", where, did_you_mean(str(role), ROLES))
    # A message that only calls tools says nothing.
    if not isinstance(content, str) and not (content is None and role == "assistant" and message.get("tool_calls")):
        what = "has no content" if content is None else f"has {type_name(content)} as content, not text"
        raise UserError(f"{name} ({role}) {what}", where, "every message needs a text under content")
    train = message.get("train")
    if train is not None and (not isinstance(train, bool) or (train and role != "assistant")):
        raise UserError(f"{name} ({role}) has train = {train!r}", where, "true or false, and true on assistant messages alone")


def _check_order(before: str | None, role: str, number: int, where: Location) -> None:
    """What no template can make sense of; whether user and assistant must take turns is the template's matter."""
    if role == "system" and before is not None:
        _out_of_order(number, "a system message", "stands after others; it comes first or not at all", where)
    if role == "tool" and before not in ("assistant", "tool"):
        _out_of_order(number, "a tool message", f"follows {before or 'nothing'}; it answers the call of an assistant", where)


def _out_of_order(number: int, what: str, why: str, where: Location) -> NoReturn:
    raise UserError(f"roles out of order: messages[{number}] is {what} that {why}", where)


def _tools(found: object, where: Location) -> tuple[Mapping[str, Any], ...]:
    if found is None:
        return ()
    if not isinstance(found, Sequence) or not all(isinstance(tool, Mapping) for tool in found):
        raise UserError("tools is no list of objects", where, "each tool is described by a JSON object, as chat templates expect it")
    return tuple(found)


def _last_answer(messages: Sequence[Message]) -> int:
    """Position of the last assistant message."""
    return next(number for number in reversed(range(len(messages))) if messages[number]["role"] == "assistant")


def _is_well_formed(value: object) -> bool:
    if isinstance(value, str):
        return is_well_formed(value)
    if isinstance(value, Mapping):
        return all(_is_well_formed(key) and _is_well_formed(item) for key, item in value.items())
    return not isinstance(value, Sequence) or all(map(_is_well_formed, value))
