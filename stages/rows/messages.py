"""What a message may carry beside its content: reasoning and calls of tools, whichever way the data write them."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from engine.core.errors import Location, UserError

Message = Mapping[str, Any]

REASONING = ("reasoning_content", "thinking", "reasoning")
"""The names under which data and chat templates know a message's reasoning; rows hold it under the first."""

_INLINE = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


class Call(NamedTuple):
    """A call of a tool: equal ones have the same name and equal arguments, whatever the order of their keys."""

    name: str
    arguments: dict[str, Any]


def reasoning_of(message: Message) -> str:
    """The reasoning of MESSAGE, whatever its key; empty where it has none."""
    return next((str(message[key]) for key in REASONING if message.get(key)), "")


def inline_reasoning(content: str) -> tuple[str, str]:
    """The reasoning that stands as `<think>` at the beginning of CONTENT, and what follows it; empty where there is none."""
    found = _INLINE.match(content)
    return (found[1], content[found.end() :]) if found else ("", content)


def calls_of(message: Message, where: Location) -> list[Call]:
    """The calls of tools in MESSAGE; raises UserError, located at WHERE, where one has no name or unreadable arguments."""
    found = []
    for call in message.get("tool_calls") or ():
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise UserError("a call of a tool names no tool", where, 'it is written as {"name": ..., "arguments": {...}}')
        found.append(Call(inner["name"], parse_arguments(inner.get("arguments"), inner["name"], where)))
    return found


def parse_arguments(given: object, name: str, where: Location) -> dict[str, Any]:
    """The arguments of a call of the tool NAME, given as an object or as JSON text; raises UserError where they are neither."""
    found = given
    if isinstance(found, str):
        try:
            found = json.loads(found, parse_constant=_no_number, object_pairs_hook=_each_once) if found.strip() else {}
        except (ValueError, RecursionError) as error:
            hint = 'write them as an object, or as the JSON text of one: "{\\"city\\": \\"Oslo\\"}"'
            raise UserError(f"the arguments of a call of '{name}' are no JSON: {error}", where, hint) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        sort = "a list" if isinstance(found, list) else "text" if isinstance(found, str) else json.dumps(found)
        raise UserError(f"the arguments of a call of '{name}' are {sort}, not an object", where, "a tool takes its arguments by name")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {json.dumps(twice)} stands there twice")
    return found


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON: the order of keys is no matter, and 1 is not true, as it is in Python."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def calls_in(text: str, around: tuple[str, str, str] | None = None) -> list[Call]:
    """The calls of tools that TEXT makes, in their order.

    AROUND is what a chat template writes before the name of a call, between name and arguments, and behind them. Without it, or where
    nothing stands in the text that way, every JSON object counts that has a `name` and `arguments` or `parameters`.
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
"""So many characters before a name tell where it begins."""
