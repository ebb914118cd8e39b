"""Reasoning and tool calls of messages, in the forms that data sets use."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from engine.core.errors import Location, UserError

Message = Mapping[str, Any]

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message's reasoning in data and chat templates; rows use the first."""

_INLINE = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


class Call(NamedTuple):
    """A tool call; equal calls have the same name and equal arguments, ignoring the order of keys."""

    name: str
    arguments: dict[str, Any]


def reasoning_of(message: Message) -> str:
    """The reasoning of MESSAGE under any of its keys; empty if there is none."""
    return next((str(message[key]) for key in REASONING if message.get(key)), "")


def inline_reasoning(content: str) -> tuple[str, str]:
    """The reasoning in a `<think>` block at the beginning of CONTENT, and the rest of CONTENT; empty if there is none."""
    found = _INLINE.match(content)
    return (found[1], content[found.end() :]) if found else ("", content)


def calls_of(message: Message, where: Location) -> list[Call]:
    """Tool calls of MESSAGE; raises UserError, located at WHERE, if one has no name or invalid arguments."""
    found = []
    for call in message.get("tool_calls") or ():
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise UserError("a tool call has no name", where, 'write it as {"name": ..., "arguments": {...}}')
        found.append(Call(inner["name"], parse_arguments(inner.get("arguments"), inner["name"], where)))
    return found


def parse_arguments(given: object, name: str, where: Location) -> dict[str, Any]:
    """The arguments of a call of tool NAME, given as an object or as JSON text; raises UserError if they are neither."""
    found = given
    if isinstance(found, str):
        try:
            found = json.loads(found, parse_constant=_no_number, object_pairs_hook=_each_once) if found.strip() else {}
        except (ValueError, RecursionError) as error:
            hint = 'write them as an object, or as its JSON text: "{\\"city\\": \\"Oslo\\"}"'
            raise UserError(f"the arguments of a call of '{name}' are not valid JSON: {error}", where, hint) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        sort = "a list" if isinstance(found, list) else "text" if isinstance(found, str) else json.dumps(found)
        raise UserError(f"the arguments of a call of '{name}' must be an object, got {sort}", where, "tools take arguments by name")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"duplicate key {json.dumps(twice)}")
    return found


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON: ignoring the order of keys, and distinguishing 1 from true, unlike Python."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def calls_in(text: str, around: tuple[str, str, str] | None = None) -> list[Call]:
    """Tool calls in TEXT, in order.

    AROUND is the text that a chat template writes before the name of a call, between name and arguments, and after them. Without it, or
    without a match, every JSON object with a `name` and `arguments` or `parameters` counts.
    """
    found: list[Call] = []
    decoder = json.JSONDecoder()
    if around is not None:
        before, between, _ = around
        position = 0
        while (start := text.find(between, position)) >= 0:
            position = start + len(between)
            try:
                arguments, end = decoder.raw_decode(text, position)
            except (ValueError, RecursionError):
                continue
            edge = before[-_EDGE:]
            head = text[text.rfind("\n", 0, start) + 1 : start]
            name = head[head.rfind(edge) + len(edge) :] if edge and edge in head else head
            if isinstance(arguments, dict) and name:
                found.append(Call(name, arguments))
                position = end
    position = 0 if not found else len(text)
    while (start := text.find("{", position)) >= 0:
        position = start + 1
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        arguments = next((value[key] for key in ("arguments", "parameters") if key in value), None)
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                continue
        if isinstance(value.get("name"), str) and isinstance(arguments, dict):
            found.append(Call(value["name"], arguments))
            position = end
    return found


_EDGE = 8
"""Number of characters before a name that locate it."""
