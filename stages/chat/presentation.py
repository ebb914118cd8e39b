"""How a chat template wants messages that call tools or reason: found once a template, by rendering short chats in each way.

Data give the arguments of a call as an object or as JSON text, and say nothing beside a call by `content: null`, `""` or no content at
all. Templates take one or the other: `arguments | tojson` quotes a text once more, `'{' + arguments` fails on an object, `{{ content }}`
prints a null as Python's `None`, `content is none` finds no call where the content is "". Rows hold one form; what a template gets is
decided here.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from engine.core.errors import Location, UserError
from stages.chat.unrendered import holds_arguments
from stages.rows.messages import REASONING, Message, parse_arguments, reasoning_of

Render = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], str]

ASKED = {"role": "user", "content": "Qprobe"}
ANSWERED = {"role": "assistant", "content": "Aprobe"}
CALLED_LAST = "Wprobe"
_NAME, _ARGUMENTS, _REASON = "Nprobe", {"kprobe": "Vprobe", "lprobe": CALLED_LAST}, "Rprobe"
# Some templates insist on ids of nine letters and digits.
_CALL = {"id": "callprobe", "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
CALLED: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
RETURNED = {"role": "tool", "content": "Tprobe", "name": _NAME, "tool_call_id": "callprobe"}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "Dprobe", "parameters": {"type": "object", "properties": {}}}}
_WORDS = ("None", "True", "False", "Undefined")


@dataclass(frozen=True)
class Presentation:
    """What a template is given."""

    arguments: Literal["as given", "object", "text"] = "as given"
    silence: Literal["null", "absent", "empty"] = "null"
    """What stands for the content of a message that only calls tools."""
    reasoning: tuple[str, ...] = REASONING
    """The keys that hold a message's reasoning."""
    calls: tuple[str, str, str] | None = None
    """The text before the name of a single call, between its name and its arguments, and behind them; None where it is not known."""
    reasoning_end: str = ""
    """The text that a template writes between reasoning and answer, white space at both ends aside."""

    def present(self, message: Message, where: Location) -> dict[str, Any]:
        """MESSAGE for the template."""
        found = {key: value for key, value in message.items() if key not in ("train", *REASONING)}
        if reasoning := reasoning_of(message):
            found |= dict.fromkeys(self.reasoning, reasoning)
        if found.get("tool_calls"):
            found["tool_calls"] = [self._call(call, where) for call in found["tool_calls"]]
            if not (found.get("content") or "").strip():
                found["content"] = None if self.silence == "null" else ""
                if self.silence == "absent":
                    del found["content"]
        return found

    def _call(self, call: Mapping[str, Any], where: Location) -> dict[str, Any]:
        inner = call.get("function", call)
        given = inner.get("arguments")
        if self.arguments == "object" or given is None:
            given = parse_arguments(given, inner.get("name", ""), where)
        if self.arguments == "text" and not isinstance(given, str):
            given = json.dumps(given, ensure_ascii=False)
        presented = {**inner, "arguments": given}
        return presented if inner is call else {**call, "function": presented}


def probe(render: Render) -> Presentation:
    """What the template behind RENDER takes; where it renders no calls, a way in which it renders the rest, if there is one."""
    found = Presentation()
    bare = next(((arguments, silence) for arguments, silence, _, _ in _ways(render, ())), None)
    if bare:
        found = replace(found, silence=bare[1])
    tools: Sequence[Mapping[str, Any]]
    for tools in ((), (_TOOL,)):
        fitting = [(arguments, silence, said) for arguments, silence, said, whole in _ways(render, tools) if whole]
        if not fitting:
            continue
        silences = list(dict.fromkeys(silence for _, silence, _ in fitting))
        texts = {arguments: text for arguments, silence, text in fitting if silence == silences[0]}
        arguments: Literal["as given", "object", "text"] = "as given" if len(texts) == 2 else "object" if "object" in texts else "text"
        found = replace(found, arguments=arguments, silence=silences[0], calls=_around(next(iter(texts.values()))))
        break
    return replace(found, **_reasoning(render))


def _ways(render: Render, tools: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, Any, str, bool]]:
    """The ways to present a call that the template takes, each with the rendering behind the question, and whether the call is whole."""
    plain = _tried(render, [ASKED, ANSWERED], tools) or ""
    for silence, arguments in product(("null", "absent", "empty"), ("object", "text")):
        way = Presentation(arguments, silence)  # type: ignore[arg-type]
        text = _tried(render, [ASKED, way.present(CALLED, Location(""))], tools)
        if text is None or any(text.count(word) > plain.count(word) for word in _WORDS):
            continue
        # The same tool is described before the question.
        said = text[text.rfind(ASKED["content"]) :]
        yield arguments, silence, said, _NAME in said and holds_arguments(said, _ARGUMENTS)


def _around(text: str) -> tuple[str, str, str] | None:
    """What stands before, between and behind the name and the arguments of the call in TEXT, where these are JSON behind the name."""
    name = text.find(_NAME)
    before, rest = text[:name], text[name + len(_NAME) :]
    start = rest.find("{")
    try:
        arguments, end = json.JSONDecoder().raw_decode(rest, start) if start >= 0 else (None, 0)
    except ValueError:
        return None
    # The last line, up to the name: what is on lines before it is the template's way to begin a turn.
    return (before.rpartition("\n")[2], rest[:start], rest[end:]) if arguments == _ARGUMENTS and start else None


def _reasoning(render: Render) -> dict[str, Any]:
    """The keys under which a template reads reasoning, and what it writes behind it."""
    for keys in (REASONING, *((key,) for key in REASONING)):
        message = Presentation(reasoning=keys).present({**ANSWERED, REASONING[0]: _REASON}, Location(""))
        text = _tried(render, [ASKED, message], ())
        # A template that reads two of them would write it twice.
        if text is not None and text.count(_REASON) == 1 and text.count(ANSWERED["content"]) == 1:
            between = text[text.find(_REASON) + len(_REASON) : max(text.find(ANSWERED["content"]), 0)]
            # A line of dashes, or nothing, would be found in answers that do not reason at all.
            return {"reasoning": keys, "reasoning_end": between.strip() if set(between) & set("<>[]|") else ""}
    return {}


def _tried(render: Render, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str | None:
    try:
        return render(messages, tools)
    except UserError:
        return None
