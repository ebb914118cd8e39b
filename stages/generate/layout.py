"""Layouts of conversations in published data sets, recognised and normalised."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

from engine.core.errors import Location, UserError, did_you_mean
from engine.core.part import Part, recipe
from stages.generate.selection import Row
from stages.rows.messages import REASONING, parse_arguments
from stages.rows.strict_json import parse, type_name
from stages.rows.text import ascii_surrogates, shorten

Message = dict[str, Any]

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
"""Role names in the layouts, and the roles of rows; `call` is an assistant message that calls a tool."""

_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("input", "output"),
)
PREFERENCE = "preference"
"""The layout of pairs: one prompt with a chosen and a rejected answer."""
UNPAIRED = "unpaired_preference"
"""The layout of answers that were judged alone: one prompt with one answer, which a label calls desirable or not."""
_LABELLED = ("messages", "conversations", "instruction", "prompt_completion")
"""The layouts of rows that may have a label."""
_SIDES = ("chosen", "rejected")
_MADE = frozenset(("messages", "tools", "system", "prompt", "completion"))
_SYSTEM = ("system", "system_prompt", "system_message")
_TEXT_KEYS = ("content", "value", "text")
_READ_KEYS = frozenset(
    ("role", "from", *_TEXT_KEYS, *REASONING, "tool_calls", "function_call", "tool_call_id", "name", "train", "weight", "replies", "rank")
)
_UNTRAINABLE = ("refusal", "audio", "image", "images", "video", "videos")
"""Keys with content that rows do not support, such as images: ignoring them would change what the row teaches."""
_SHOWN = 400


class Layout(Part):
    """The layout of the conversations in a source's rows."""

    kind: Literal[
        "auto", "messages", "conversations", "instruction", "prompt_completion", "preference", "unpaired_preference", "tree", "text"
    ] = recipe(
        "auto",
        "`messages` (OpenAI: role, content), `conversations` (ShareGPT: from, value), `instruction` (Alpaca, Dolly), "
        "`prompt_completion` (also question and answer), `preference` (a prompt or conversation with a `chosen` and a `rejected` answer), "
        "`unpaired_preference` (a prompt or conversation with one answer, and a `label`, true if desirable; not recognised by `auto`), "
        "`tree` (nested replies: the best-ranked one at each level), "
        "`text`; `auto` recognises each row by its columns.",
    )

    def normalised(self, row: Row, where: Location, ignored: Counter[str] | None = None) -> tuple[str, Row]:
        """The name of the row's layout, and ROW with the normalised columns added.

        These are `messages` and `tools`; for one prompt with one completion also `system`, `prompt` and `completion`; for a pair also
        `rejected`, the message that stands in place of the last one; for an answer that was judged alone `desirable`. Unknown keys of
        messages are counted in IGNORED. Raises UserError, which shows the row, if the layout is not recognised.
        """
        name = _recognised(row) if self.kind in ("auto", UNPAIRED) else self.kind
        if name is None or (self.kind == UNPAIRED and name not in _LABELLED):
            raise _unrecognised(row, where, self.kind)
        unread: Counter[str] = Counter() if ignored is None else ignored
        kept = {key: row[key] for key in row if key not in _MADE}
        if name == PREFERENCE:
            chosen, rejected = _pair_of_answers(row, where, unread)
            return name, {**kept, **_columns(chosen, row, where), "rejected": rejected}
        given = _READ[name](row, where)
        if given is None:
            raise _unrecognised(row, where, name)
        conversation = [_message(item, where, unread) for item in given]
        if name != "text":
            conversation = _with_system(conversation, row, where)
        if self.kind == UNPAIRED:
            return UNPAIRED, {**kept, **_columns(conversation, row, where), "desirable": _label(conversation, row, where)}
        return name, {**kept, **_columns(conversation, row, where)}


def _recognised(row: Row) -> str | None:
    if isinstance(row.get("messages"), list):
        return "messages"
    if all(side in row for side in _SIDES) and not any(answer in row for _, answer in _PAIRS):
        return PREFERENCE
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
    hint = 'rename the columns to those of a layout, such as columns = { prompt = "ask", completion = "reply" }; or remove layout'
    return UserError(f"{wanted}: {shown}", where, hint)


def _messages(row: Row, where: Location) -> list[Any] | None:
    found = row.get("messages")
    return found if isinstance(found, list) and found else None


def _conversations(row: Row, where: Location) -> list[Any] | None:
    found = row.get("conversations", row.get("conversation"))
    return found if isinstance(found, list) and found else None


def _with_system(messages: list[Message], row: Row, where: Location) -> list[Message]:
    """MESSAGES with the system prompt from a separate column, if any; raises UserError if two system prompts differ."""
    found: dict[str, str] = {}
    for column in _SYSTEM:
        value = row.get(column)
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        if not isinstance(value, str):
            raise UserError(f"column '{column}' must be text (a system prompt), got {type_name(value)}", where)
        found[f"column '{column}'"] = value
    if messages and messages[0]["role"] == "system" and messages[0]["content"].strip():
        found["messages[0]"] = messages[0]["content"]
    if len(set(found.values())) > 1:
        places = " and ".join(found)
        hint = 'keep one of them, such as columns = { system = "none" }, or join them in the data'
        raise UserError(f"this row has two different system prompts, in {places}", where, hint)
    if not found or "messages[0]" in found:
        return messages
    rest = messages[1:] if messages and messages[0]["role"] == "system" else messages
    return [{"role": "system", "content": next(iter(found.values()))}, *rest]


def _message(given: object, where: Location, ignored: Counter[str]) -> Message:
    """One message with role, content and its other supported keys, from any layout; raises UserError for an invalid message."""
    if not isinstance(given, dict):
        raise UserError(f"a message must be an object, got {type_name(given)}", where, "a message has role and content, or from and value")
    speaker = given.get("role", given.get("from"))
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise UserError(f"unknown role {json.dumps(speaker)}", where, did_you_mean(str(speaker), ROLES))
    if lost := next((key for key in _UNTRAINABLE if given.get(key)), None):
        hint = "only text is supported; write it into content, or leave the row out with source.where"
        raise UserError(f"a message of role {speaker} has '{lost}', which is not supported", where, hint)
    role = ROLES[speaker]
    content, reasoning = _content(next((given[key] for key in _TEXT_KEYS if given.get(key) is not None), None), where)
    if role == "call":
        role, calls, content = "assistant", _calls(_json(content, "a tool call", where), where, ignored), ""
    else:
        calls = _given_calls(given, where, ignored)
    reasoning = _reasoning(given, reasoning, where)
    message: Message = {"role": role, "content": content}
    for name, value in (("reasoning_content", reasoning), ("tool_calls", calls)):
        if value and role != "assistant":
            raise UserError(f"a message of role {speaker} has {name}, which only assistant messages may have", where)
        if value:
            message[name] = value
    message |= {key: given[key] for key in ("tool_call_id", "name") if given.get(key)}
    learned = _learned(given, where)
    if learned is not None and role == "assistant":
        message["train"] = learned
    elif learned:
        ignored[f"train of role {role}"] += 1
    ignored.update(key for key, value in given.items() if key not in _READ_KEYS and value not in (None, "", [], {}))
    return message


def _content(value: object, where: Location) -> tuple[str, str]:
    """The text of a message, whose content may be a list of parts, and the reasoning among its parts."""
    if value is None:
        return "", ""
    if isinstance(value, list):
        texts: dict[str, list[str]] = {"text": [], "thinking": []}
        for part in value:
            kind = part.get("type") if isinstance(part, dict) else None
            kind = "thinking" if kind == "reasoning" else "text" if kind in ("input_text", "output_text") else kind
            said = part.get(str(kind), part.get("text")) if isinstance(part, dict) else None
            # The thinking may itself be a list of parts.
            if kind == "thinking" and isinstance(said, list):
                said = _content(said, where)[0]
            if kind not in texts or not isinstance(said, str):
                shown = f"a part of type {json.dumps(kind)}" if kind else type_name(part)
                raise UserError(f"a message's content contains {shown}", where, "only parts with text or thinking are supported")
            texts[str(kind)].append(said)
        return "".join(texts["text"]), "".join(texts["thinking"])
    if not isinstance(value, str):
        raise UserError(f"a message's content must be text, got {type_name(value)}", where, "only text is supported")
    return value, ""


def _reasoning(given: Mapping[str, Any], from_parts: str, where: Location) -> str:
    """The reasoning of a message under any of its keys; raises UserError if two keys differ."""
    found = {"content": from_parts} if from_parts.strip() else {}
    for key in REASONING:
        value = given.get(key)
        if value is not None and not isinstance(value, str):
            raise UserError(f"a message's {key} must be text, got {type_name(value)}", where)
        if value and value.strip():
            found[key] = value
    if len(set(found.values())) > 1:
        raise UserError(f"a message has different reasoning under {' and '.join(found)}", where, "keep one of them")
    return next(iter(found.values()), "")


_YES_NO = ((True, "true", "1"), (False, "false", "0"))


def _learned(given: Mapping[str, Any], where: Location) -> bool | None:
    """Whether a message is supervised, by its `train` or `weight`; None if it has neither; raises UserError for other values."""
    said: dict[str, bool] = {}
    for key in ("train", "weight"):
        value = given.get(key)
        if value is None:
            continue
        # 1, 1.0 and true are equal in Python, and so are 0, 0.0 and false.
        found = next((answer for answer, values in zip((True, False), _YES_NO, strict=True) if value in values), None)
        if found is None:
            hint = "1, 1.0 or true: supervised; 0, 0.0 or false: not supervised; other weights are not supported"
            raise UserError(f"a message's {key} must be 0, 1, true or false, got {json.dumps(value)}", where, hint)
        said[key] = found
    if len(set(said.values())) > 1:
        raise UserError("a message's train and weight contradict each other", where, "keep one of them")
    return next(iter(said.values()), None)


def _given_calls(given: Mapping[str, Any], where: Location, ignored: Counter[str]) -> list[Message]:
    """Tool calls under `tool_calls`, or the one under `function_call`, OpenAI's former format."""
    found, single = given.get("tool_calls"), given.get("function_call")
    if isinstance(found, str):
        found = _json(found, "a message's tool_calls", where) if found.strip() else []
    if found and single:
        raise UserError("a message has both tool_calls and function_call", where, "keep one of them")
    if found is not None and not isinstance(found, list | dict):
        raise UserError(f"a message's tool_calls must be a list of calls, got {type_name(found)}", where)
    return _calls(found or single, where, ignored) if found or single else []


def _calls(given: object, where: Location, ignored: Counter[str]) -> list[Message]:
    """Tool calls as `{type, function: {name, arguments}}`; arguments stay text or object."""
    return [_call(call, where, ignored) for call in (given if isinstance(given, list) else [given])]


def _call(call: object, where: Location, ignored: Counter[str]) -> Message:
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
        raise UserError("a tool call has no name", where, 'write it as {"name": ..., "arguments": {...}}')
    arguments: object = next((inner[key] for key in ("arguments", "parameters") if inner.get(key) is not None), {})
    parsed = parse_arguments(arguments, inner["name"], where)
    # A blank text means no arguments.
    kept = arguments if isinstance(arguments, dict) or (isinstance(arguments, str) and arguments.strip()) else parsed
    known = {"id", "type", "function", "index"} | ({"name", "arguments", "parameters"} if inner is call else set())
    ignored.update(f"tool_calls.{key}" for key, value in call.items() if key not in known and value)
    if inner is not call:
        ignored.update(f"tool_calls.{key}" for key, value in inner.items() if key not in ("name", "arguments", "parameters") and value)
    identity = {"id": call["id"]} if call.get("id") else {}
    return {**identity, "type": call.get("type") or "function", "function": {"name": inner["name"], "arguments": kept}}


def _json(text: str, what: str, where: Location) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON: {error}", where) from None


def _tools(row: Row, where: Location) -> list[Message]:
    """The tools of a conversation, each as `{type: function, function: {...}}`."""
    given = next((row[column] for column in ("tools", "functions") if row.get(column) is not None), None)
    if isinstance(given, str):
        given = _json(given, "the column 'tools'", where) if given.strip() else []
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        raise UserError(f"column 'tools' must be a list of objects, got {type_name(given)}", where)
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in given]


def _instruction(row: Row, where: Location) -> list[Message] | None:
    instances = row.get("instances")
    if isinstance(instances, list):
        if len(instances) != 1 or not isinstance(instances[0], dict):
            hint = 'choose one, such as columns = { input = "instances[0].input", output = "instances[0].output", instances = "none" }'
            raise UserError(
                f"this instruction has {len(instances)} instances, but a row must have exactly one question and answer", where, hint
            )
        row = {**row, **instances[0]}
    instruction, context = row.get("instruction"), row.get("input", row.get("context"))
    answer = row.get("output", row.get("response"))
    if not isinstance(instruction, str) or not isinstance(answer, str) or not isinstance(context, str | None):
        return None
    return _pair(f"{instruction}\n\n{context}" if context and context.strip() else instruction, answer, row, where)


def _prompt_completion(row: Row, where: Location) -> list[Message] | None:
    for question, answer in _PAIRS:
        asked, said = row.get(question), row.get(answer)
        if isinstance(asked, str) and isinstance(said, str):
            return _pair(asked, said, row, where)
        if isinstance(asked, list | str) and isinstance(said, list | str) and said:
            before = [*_history(row, where), {"role": "user", "content": asked}] if isinstance(asked, str) else asked
            return [*before, *([{"role": "assistant", "content": said}] if isinstance(said, str) else said)]
    return None


def _pair_of_answers(row: Row, where: Location, ignored: Counter[str]) -> tuple[list[Message], Message]:
    """The conversation with the chosen answer, and the rejected answer as the message to stand in place of its last one.

    Raises UserError if a side is missing, is no answer, begins otherwise than the other, or says the same.
    """
    sides = []
    for name in _SIDES:
        given = [_message(item, where, ignored) for item in _side(row, name, where)]
        if not given or given[-1]["role"] != "assistant":
            raise UserError(f"'{name}' of this pair does not end with an answer", where, "its last message must be of the assistant")
        sides.append(_with_system(given, row, where))
    chosen, rejected = sides
    if chosen[:-1] != rejected[:-1]:
        number = next((n for n, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other), 0)
        what = f"chosen and rejected of this pair answer different prompts: they differ from messages[{number}] on"
        raise UserError(what, where, "both must be answers, of one message each, to the same conversation")
    if chosen[-1] == rejected[-1]:
        hint = 'leave such rows out: where = "chosen != rejected", in the source'
        raise UserError("chosen and rejected of this pair are equal, so that neither is better", where, hint)
    return chosen, rejected[-1]


def _label(conversation: list[Message], row: Row, where: Location) -> bool:
    """Whether the answer that ends CONVERSATION is desirable; raises UserError if there is no such answer, or no label that says it."""
    if conversation[-1]["role"] != "assistant":
        raise UserError(
            "this row does not end with an answer, which its label could judge", where, "its last message must be of the assistant"
        )
    given = row.get("label")
    # 1, 1.0 and true are equal in Python, and so are 0, 0.0 and false.
    found = next((answer for answer, values in zip((True, False), _YES_NO, strict=True) if given in values), None)
    if found is None:
        shown = shorten(given) if isinstance(given, str) else json.dumps(given)[:_SHOWN]
        said = f"its label is {shown}" if "label" in row else "it has no column 'label'"
        hint = 'a label is true (desirable) or false; another column is named by columns = { label = "kto_tag" }'
        raise UserError(f"this row does not say whether its answer is desirable: {said}", where, hint)
    return found


def _side(row: Row, name: str, where: Location) -> list[Any]:
    """One side of a pair as messages: what was asked, and the answer called NAME; raises UserError if there is no such answer."""
    said = row.get(name)
    if said is None or said == "" or said == []:
        raise UserError(f"this pair has no {name} answer", where, "a pair needs both `chosen` and `rejected`")
    answer = [{"role": "assistant", "content": said}] if isinstance(said, str) else [said] if isinstance(said, dict) else said
    if not isinstance(answer, list):
        raise UserError(f"'{name}' of this pair must be text, a message or messages, got {type_name(said)}", where)
    first = answer[0] if isinstance(answer[0], dict) else {}
    if ROLES.get(str(first.get("role", first.get("from")))) != "assistant":
        return answer  # a whole conversation
    asked = _asked(row, where)
    if asked is None:
        hint = "put the prompt under `prompt`, as text or messages, or write both sides as whole conversations"
        raise UserError("this pair has two answers but no prompt", where, hint)
    return [*asked, *answer]


def _asked(row: Row, where: Location) -> list[Any] | None:
    """The messages before the answers of a pair; None if there are none."""
    for key in ("conversations", "conversation", "messages", "prompt"):
        if isinstance(given := row.get(key), list):
            return given
    question = next((row[key] for key in ("prompt", "question", "query", "instruction") if isinstance(row.get(key), str)), None)
    context = row.get("input", row.get("context")) if "instruction" in row else None
    if question is None:
        return None
    if isinstance(context, str) and context.strip():
        question = f"{question}\n\n{context}"
    return [*_history(row, where), {"role": "user", "content": question}]


def _pair(question: str, answer: str, row: Row, where: Location) -> list[Message]:
    return [*_history(row, where), {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _history(row: Row, where: Location) -> list[Message]:
    """The turns before a question, in the Alpaca layout as pairs under `history`; messages are accepted too."""
    given = row.get("history")
    if isinstance(given, str) and given.strip():
        given = _json(given, "the column 'history'", where)
    if not given:
        return []
    found: list[Message] = []
    for turn in given if isinstance(given, list) else [None]:
        if isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn):
            found += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), turn, strict=True)]
        elif isinstance(turn, dict) and ("role" in turn or "from" in turn):
            found.append(turn)
        else:
            hint = 'write [["first question", "first answer"], ...]; or drop the column: columns = { history = "none" }'
            raise UserError("column 'history' must be a list of [question, answer] pairs", where, hint)
    return found


def _text(row: Row, where: Location) -> list[Message] | None:
    text = row.get("text")
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else None


def _tree(row: Row, where: Location) -> list[Message] | None:
    """The path through a tree of replies that takes the best-ranked reply at each level, up to the last answer."""
    node: Any = row.get("prompt", row)
    path: list[Message] = []
    while isinstance(node, dict):
        path.append(node)
        replies = node.get("replies") or []
        ranks = [
            (reply.get("rank") if isinstance(reply.get("rank"), int) else len(replies), number) for number, reply in enumerate(replies)
        ]
        node = replies[min(ranks)[1]] if ranks else None
    while path and ROLES.get(str(path[-1].get("role"))) != "assistant" and len(path) > 1:
        path.pop()
    return path or None


_READ: Mapping[str, Callable[[Row, Location], list[Any] | None]] = {
    "messages": _messages,
    "conversations": _conversations,
    "instruction": _instruction,
    "prompt_completion": _prompt_completion,
    "tree": _tree,
    "text": _text,
}


def _columns(messages: list[Message], row: Row, where: Location) -> Row:
    """The normalised columns."""
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
