"""Layouts of conversations that data sets come in, recognised and brought into one form."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from engine.errors import Location, UserError, did_you_mean
from engine.part import Part, recipe
from stages.common.jsonl import type_name
from stages.common.strict_json import parse
from stages.common.text import ascii_surrogates
from stages.generate.selection import Row

Message = dict[str, Any]

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
"""What the layouts call those who speak, and what they are called here; `call` is an assistant that calls a tool."""

_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("input", "output"),
)
_MADE = frozenset(("messages", "tools", "system", "prompt", "completion"))
_SHOWN = 400


class Layout(Part):
    """In which form the rows hold their conversations."""

    kind: Literal["auto", "messages", "conversations", "instruction", "prompt_completion", "tree", "text"] = recipe(
        "auto",
        "`messages` (OpenAI: role, content), `conversations` (ShareGPT: from, value), `instruction` (Alpaca, Dolly), "
        "`prompt_completion` (also question and answer), `tree` (replies in replies: the best ranked one of each), "
        "`text`; `auto` recognises each row by its columns.",
    )

    def normalised(self, row: Row, where: Location) -> tuple[str, Row]:
        """The name of the row's layout, and ROW with the columns that every layout becomes.

        These are `messages` and `tools`; of one question with one answer also `system`, `prompt` and `completion`.
        Raises UserError, which shows the row, where it is not recognised.
        """
        name = _recognised(row) if self.kind == "auto" else self.kind
        if name is None:
            raise _unrecognised(row, where, self.kind)
        conversation = _READ[name](row, where)
        if conversation is None:
            raise _unrecognised(row, where, name)
        return name, {**{key: row[key] for key in row if key not in _MADE}, **_columns(conversation, row, where)}


def _recognised(row: Row) -> str | None:
    if isinstance(row.get("messages"), list):
        return "messages"
    if isinstance(row.get("conversations", row.get("conversation")), list):
        return "conversations"
    if isinstance(row.get("replies"), list) or isinstance(row.get("prompt"), dict):
        return "tree"
    if isinstance(row.get("instruction"), str):
        return "instruction"
    if any(question in row and answer in row for question, answer in _PAIRS):
        return "prompt_completion"
    return "text" if isinstance(row.get("text"), str) else None


def _unrecognised(row: Row, where: Location, kind: str) -> UserError:
    shown = json.dumps(row, ensure_ascii=False)
    shown = ascii_surrogates(shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…")
    wanted = "the layout of this row is not recognised" if kind == "auto" else f"this row is not of layout '{kind}'"
    hint = 'name the columns as a layout wants them, such as columns = { prompt = "ask", completion = "reply" }; or leave out layout'
    return UserError(f"{wanted}: {shown}", where, hint)


def _messages(row: Row, where: Location) -> list[Message] | None:
    found = row.get("messages")
    return [_message(item, where) for item in found] if isinstance(found, list) and found else None


def _conversations(row: Row, where: Location) -> list[Message] | None:
    found = row.get("conversations", row.get("conversation"))
    if not isinstance(found, list) or not found:
        return None
    system = row.get("system")
    first = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return first + [_message(item, where) for item in found]


def _message(given: object, where: Location) -> Message:
    """One message as role and content, from either of the two layouts; raises UserError where it is none."""
    if not isinstance(given, dict):
        raise UserError(f"a message is {type_name(given)}, not an object", where, "a message has role and content, or from and value")
    speaker = given.get("role", given.get("from"))
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise UserError(f"a message is of unknown role {json.dumps(speaker)}", where, did_you_mean(str(speaker), ROLES))
    role, content = ROLES[speaker], _content(given.get("content", given.get("value", given.get("text"))), where)
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": _calls(content, where)}
    message: Message = {"role": role, "content": content}
    message |= {key: given[key] for key in ("tool_calls", "tool_call_id", "name") if given.get(key)}
    if isinstance(flag := given.get("train", given.get("weight")), bool | int) and role == "assistant":
        message["train"] = bool(flag)
    return message


def _content(value: object, where: Location) -> str:
    """The text of a message, which some layouts give in parts."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise UserError(f"a message's content is {type_name(value)}, not text", where, "only text can be trained on")
    return value


def _calls(text: str, where: Location) -> list[Message]:
    """The calls of tools that a message writes as JSON."""
    calls = _json(text, "a call of a tool", where)
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise UserError("a call of a tool names no tool", where, 'it is written as {"name": ..., "arguments": {...}}')
    return [{"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}} for call in calls]


def _json(text: str, what: str, where: Location) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UserError(f"{what} is no JSON: {error}", where) from None


def _tools(row: Row, where: Location) -> list[Message]:
    """The tools of a conversation, each as `{type: function, function: {...}}`."""
    given = row.get("tools")
    if isinstance(given, str):
        given = _json(given, "the column 'tools'", where) if given.strip() else []
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        raise UserError(f"column 'tools' holds {type_name(given)}, not a list of objects", where)
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in given]


def _instruction(row: Row, where: Location) -> list[Message] | None:
    instances = row.get("instances")
    if isinstance(instances, list):
        if len(instances) != 1 or not isinstance(instances[0], dict):
            hint = 'choose one, such as columns = { input = "instances[0].input", output = "instances[0].output", instances = "none" }'
            raise UserError(f"this instruction has {len(instances)} instances, and a row is one question with one answer", where, hint)
        row = {**row, **instances[0]}
    instruction, context = row.get("instruction"), row.get("input", row.get("context"))
    answer = row.get("output", row.get("response"))
    if not isinstance(instruction, str) or not isinstance(answer, str) or not isinstance(context, str | None):
        return None
    return _pair(f"{instruction}\n\n{context}" if context and context.strip() else instruction, answer, row)


def _prompt_completion(row: Row, where: Location) -> list[Message] | None:
    for question, answer in _PAIRS:
        asked, said = row.get(question), row.get(answer)
        if isinstance(asked, str) and isinstance(said, str):
            return _pair(asked, said, row)
        if isinstance(asked, list) and isinstance(said, list) and said:
            return [_message(item, where) for item in (*asked, *said)]
    return None


def _pair(question: str, answer: str, row: Row) -> list[Message]:
    system = row.get("system")
    first = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return [*first, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _text(row: Row, where: Location) -> list[Message] | None:
    text = row.get("text")
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else None


def _tree(row: Row, where: Location) -> list[Message] | None:
    """The path through a tree of replies that takes the best ranked reply each time, up to the last answer."""
    node: Any = row.get("prompt", row)
    path: list[Message] = []
    while isinstance(node, dict):
        path.append(_message(node, where))
        replies = node.get("replies") or []
        ranks = [
            (reply.get("rank") if isinstance(reply.get("rank"), int) else len(replies), number) for number, reply in enumerate(replies)
        ]
        node = replies[min(ranks)[1]] if ranks else None
    while path and path[-1]["role"] != "assistant" and len(path) > 1:
        path.pop()
    return path or None


_READ: Mapping[str, Callable[[Row, Location], list[Message] | None]] = {
    "messages": _messages,
    "conversations": _conversations,
    "instruction": _instruction,
    "prompt_completion": _prompt_completion,
    "tree": _tree,
    "text": _text,
}


def _columns(messages: list[Message], row: Row, where: Location) -> Row:
    """The columns that every layout becomes."""
    tools = _tools(row, where)
    columns: Row = {"messages": messages, "tools": tools}
    plain = all(message.keys() == {"role", "content"} for message in messages) and not tools
    match [message["role"] for message in messages]:
        case ["system", "user", "assistant"] if plain:
            system, prompt, completion = (message["content"] for message in messages)
        case ["user", "assistant"] if plain:
            system, prompt, completion = "", messages[0]["content"], messages[1]["content"]
        case ["assistant"] if plain:
            system, prompt, completion = "", "", messages[0]["content"]
        case _:
            return columns
    return {**columns, "system": system, "prompt": prompt, "completion": completion}
