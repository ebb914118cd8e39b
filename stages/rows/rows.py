"""Rows of a task, read with located errors: prompt and completion, or the messages of a conversation.

The two forms, one JSON object per line; a pair has a second, worse answer under `rejected`:
 1. `id`, `group`, `prompt`, `completion` and, if the task has one, `system`; `references` if several answers are correct, the first of
    which is `completion`; `rejected` is text;
 2. `id`, `group`, `messages` (`role`, `content`, optionally `train` and other keys of chat templates, such as `tool_calls`) and
    optionally `tools`. The last assistant message is the reference of an evaluation; `rejected` is a message to stand in its place.
A rejected answer that was cut off has `rejected_ended`, false.

An answer that was judged alone has `desirable`, true or false; an undesirable one is no reference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from engine.core.errors import Location, UserError, did_you_mean
from stages.rows.jsonl import read_objects
from stages.rows.messages import REASONING, Call, calls_of, inline_reasoning, reasoning_of
from stages.rows.strict_json import type_name
from stages.rows.text import is_well_formed

ROLES = ("system", "user", "assistant", "tool")

Message = Mapping[str, Any]
"""`role`, `content`, and other keys of chat templates; `train: false` excludes an assistant message from supervision."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a task; `messages` is empty for a prompt with its completion."""

    where: Location
    id: str
    group: str
    prompt: str = ""
    completion: str = ""
    system: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    references: tuple[str, ...] = ()
    """All correct answers, if there are several; the first is the completion."""
    answered: bool = True
    """Whether the row has an answer to learn from or compare with."""
    part_of: str | None = None
    """Id of the conversation that was unrolled into several rows, including this one."""
    rejected: str | Message | None = None
    """The worse answer to the same prompt: text, or a message if the row is a conversation; None if the row is not a pair."""
    desirable: bool | None = None
    """Whether the answer is desirable; None if nobody judged it alone."""
    rejected_ended: bool = True
    """Whether the rejected answer was written to its end; else its model was cut off at a limit."""
    ended: bool = True
    """Whether the last answer was written to its end; if not, no end is learned."""

    def with_rejected(self) -> "Row":
        """The row with its rejected answer in place of the chosen one."""
        assert self.rejected is not None
        ended = self.rejected_ended
        if isinstance(self.rejected, str):
            return replace(self, completion=self.rejected, references=(), rejected=None, ended=ended)
        return replace(self, messages=(*self.messages[:-1], self.rejected), rejected=None, ended=ended)

    def conversation(self) -> tuple[Message, ...]:
        """The messages of the row, in either form."""
        if self.messages:
            return self.messages
        system = ({"role": "system", "content": self.system},) if self.system is not None else ()
        return (*system, {"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.completion})

    def up_to(self, number: int) -> "Row":
        """The row up to message NUMBER of its conversation."""
        messages = self.conversation()
        return self if number == len(messages) - 1 else replace(self, messages=messages[: number + 1])

    @property
    def question(self) -> tuple[Message, ...]:
        """The messages before the reference."""
        messages = self.conversation()
        return messages[: _last_answer(messages)]

    @property
    def asked(self) -> str:
        """The prompt as text for display; of a conversation, the messages before the answer."""
        if not self.messages:
            return self.prompt
        return "\n\n".join(message["content"] for message in self.question if message["content"])

    @property
    def reference(self) -> str:
        """The reference of an evaluation; empty if the assistant only calls tools."""
        if not self.messages:
            return self.completion
        return str(self.messages[_last_answer(self.messages)]["content"] or "")

    @property
    def reference_calls(self) -> list[Call]:
        """Tool calls of the reference; raises UserError if one is invalid."""
        return calls_of(self.messages[_last_answer(self.messages)], self.where) if self.messages else []

    @property
    def characters(self) -> int:
        """Approximate length of the row, in characters, without a rejected answer."""
        return len(self.prompt) + len(self.completion) + sum(len(str(message["content"])) for message in self.messages)

    def is_well_formed(self) -> bool:
        """Whether every text of the row can be encoded as UTF-8."""
        if not self.messages:
            return is_well_formed("".join((self.prompt, self.completion, self.system or "", *self.references)))
        return _is_well_formed(self.messages) and _is_well_formed(self.tools)


def read_rows(path: Path, unanswered: bool = False) -> Iterator[Row]:
    """The rows of PATH; raises UserError, located at its line, for an invalid row or roles out of order.

    UNANSWERED: a prompt without a completion is valid.
    """
    for where, found in read_objects(path):
        yield parse_row(found, where, unanswered)


def parse_row(found: Mapping[str, Any], where: Location, unanswered: bool = False) -> Row:
    """The row in a JSON object read at WHERE; raises UserError if it has neither form."""
    identity, group = found.get("id", ""), found.get("group", "")
    if not isinstance(identity, str) or not isinstance(group, str):
        raise UserError("this row's id and group must be strings", where, "generate writes both")
    if "messages" not in found:
        if unanswered and found.get("completion") is None:
            if not isinstance(found.get("prompt"), str):
                raise UserError("this row needs text under prompt, or a list under messages", where, "prompt must be a string")
            return Row(where, identity, group, *_pair({**found, "completion": ""}, where), answered=False)
        references, rejected = _references(found, where), _rejected(found, where)
        row = Row(where, identity, group, *_pair(found, where), references=references, rejected=rejected)
        return replace(row, desirable=_desirable(found, where), rejected_ended=rejected_ended(found, where))
    if clash := next((key for key in ("prompt", "completion", "system", "references") if key in found), None):
        raise UserError(f"this row has both messages and {clash}", where, "a row has either messages, or prompt and completion")
    messages, tools = _messages(found["messages"], where), _tools(found.get("tools"), where)
    rejected, desirable = _rejected(found, where), _desirable(found, where)
    ended = rejected_ended(found, where)
    return Row(where, identity, group, messages=messages, tools=tools, rejected=rejected, desirable=desirable, rejected_ended=ended)


def _pair(found: Mapping[str, Any], where: Location) -> tuple[str, str, str | None]:
    prompt, completion, system = found.get("prompt"), found.get("completion"), found.get("system")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise UserError("this row needs text under prompt and completion", where, "both must be strings; or use messages, a list")
    if not isinstance(system, str | None):
        raise UserError(f"this row's system prompt must be text, got {type_name(system)}", where)
    return prompt, completion, system


def _references(found: Mapping[str, Any], where: Location) -> tuple[str, ...]:
    given = found.get("references")
    if given is None:
        return ()
    if not isinstance(given, list) or not given or not all(isinstance(text, str) for text in given):
        raise UserError("this row's references must be a list of texts", where, "remove the key if the completion is the only reference")
    if found["completion"] not in given:
        raise UserError("this row's completion is not among its references", where, "the completion must be the first reference")
    return tuple(given)


def _rejected(found: Mapping[str, Any], where: Location) -> str | Message | None:
    """The rejected answer of a pair, in the form of the row: text, or an assistant message."""
    given = found.get("rejected")
    if given is None:
        return None
    if "messages" not in found:
        if not isinstance(given, str):
            raise UserError(f"this row's rejected answer must be text, got {type_name(given)}", where, "as its completion is text")
        return given
    if not isinstance(given, Mapping) or given.get("role") != "assistant" or found["messages"][-1]["role"] != "assistant":
        what = "this row's rejected answer must be an assistant message, to stand in place of the last one"
        raise UserError(what, where, 'such as {"role": "assistant", "content": "..."}')
    _check_message(given, len(found["messages"]) - 1, where)
    return given


def _desirable(found: Mapping[str, Any], where: Location) -> bool | None:
    given = found.get("desirable")
    if not isinstance(given, bool | None):
        raise UserError(f"this row's desirable must be true or false, got {type_name(given)}", where, "remove the key if nobody judged it")
    return given


def rejected_ended(found: Mapping[str, Any], where: Location) -> bool:
    """Whether the rejected answer of a row at WHERE was written to its end; raises UserError if it says neither yes nor no."""
    given = found.get("rejected_ended", True)
    if not isinstance(given, bool):
        what = f"this row's rejected_ended must be true or false, got {type_name(given)}"
        raise UserError(what, where, "false: the rejected answer was cut off, so that its end is not learned")
    return given


def without_reasoning(row: Row) -> tuple[Row, int]:
    """ROW without the assistant's reasoning (its key, or a leading `<think>` block), and the number of messages that had some."""
    messages, count = [], 0
    for message in row.conversation():
        reasoning, content = inline_reasoning(message["content"] or "")
        if message["role"] == "assistant" and (reasoning or reasoning_of(message)):
            count += 1
            message = {key: value for key, value in message.items() if key not in REASONING} | ({"content": content} if reasoning else {})
        messages.append(message)
    return (replace(row, messages=tuple(messages)), count) if count else (row, 0)


def _messages(found: object, where: Location) -> tuple[Message, ...]:
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise UserError("messages must be a list of messages", where, 'such as [{"role": "user", "content": "..."}, ...]')
    for number, message in enumerate(found):
        _check_message(message, number, where)
    for number, (before, message) in enumerate(zip(({"role": None}, *found), found, strict=False)):
        _check_order(before["role"], message["role"], number, where)
    if all(message["role"] != "assistant" for message in found):
        raise UserError("this conversation has no assistant message", where, "at least one is needed, to learn from or to compare with")
    return tuple(found)


def _check_message(message: Any, number: int, where: Location) -> None:
    name = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise UserError(f"{name} must be an object with role and content, got {type_name(message)}", where)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise UserError(f"{name} has the role {role!r}", where, did_you_mean(str(role), ROLES))
    # A message that only calls tools has no content.
    if not isinstance(content, str) and not (content is None and role == "assistant" and message.get("tool_calls")):
        what = "has no content" if content is None else f"has {type_name(content)} as content, not text"
        raise UserError(f"{name} ({role}) {what}", where, "every message needs text under content")
    train = message.get("train")
    if train is not None and (not isinstance(train, bool) or (train and role != "assistant")):
        raise UserError(f"{name} ({role}) has train = {train!r}", where, "train must be true or false, and true only on assistant messages")


def _check_order(before: str | None, role: str, number: int, where: Location) -> None:
    """Raise UserError for an order of roles that no template supports; alternation of user and assistant is up to the template."""
    if role == "system" and before is not None:
        _out_of_order(number, "a system message", "comes after others; it must be first", where)
    if role == "tool" and before not in ("assistant", "tool"):
        _out_of_order(number, "a tool message", f"follows {before or 'nothing'}; it must follow an assistant's tool call", where)


def _out_of_order(number: int, what: str, why: str, where: Location) -> NoReturn:
    raise UserError(f"roles out of order: messages[{number}] is {what} that {why}", where)


def _tools(found: object, where: Location) -> tuple[Mapping[str, Any], ...]:
    if found is None:
        return ()
    if not isinstance(found, Sequence) or not all(isinstance(tool, Mapping) for tool in found):
        raise UserError("tools must be a list of objects", where, "each tool is described by a JSON object, as chat templates expect")
    return tuple(found)


def _last_answer(messages: Sequence[Message]) -> int:
    """Index of the last assistant message."""
    return next(number for number in reversed(range(len(messages))) if messages[number]["role"] == "assistant")


def _is_well_formed(value: object) -> bool:
    if isinstance(value, str):
        return is_well_formed(value)
    if isinstance(value, Mapping):
        return all(_is_well_formed(key) and _is_well_formed(item) for key, item in value.items())
    return not isinstance(value, Sequence) or all(map(_is_well_formed, value))
