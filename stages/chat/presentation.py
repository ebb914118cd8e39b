"""Which message form a chat template expects for tool calls and reasoning: probed once per template by rendering short chats.

Data give the arguments of a call as an object or as JSON text, and an empty content beside a call as `content: null`, `""` or no key.
Templates support one or the other: `arguments | tojson` quotes a text again, `'{' + arguments` fails on an object, `{{ content }}` prints
null as Python's `None`, `content is none` misses the call if the content is "". Rows hold one form; this module picks what a template
gets.
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
# Some templates (Mistral's) require call ids of nine letters and digits.
_CALL = {"id": "callprobe", "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
CALLED: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
RETURNED = {"role": "tool", "content": "Tprobe", "name": _NAME, "tool_call_id": "callprobe"}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "Dprobe", "parameters": {"type": "object", "properties": {}}}}
_WORDS = ("None", "True", "False", "Undefined")


@dataclass(frozen=True)
class Presentation:
    """The message form that a template expects."""

    arguments: Literal["as given", "object", "text"] = "as given"
    silence: Literal["null", "absent", "empty"] = "null"
    """The content of a message that only calls tools."""
    reasoning: tuple[str, ...] = REASONING
    """The keys that hold a message's reasoning."""
    calls: tuple[str, str, str] | None = None
    """Text before a single call's name, between name and arguments, and after the arguments; None if unknown."""
    reasoning_end: str = ""
    """Text that a template writes between reasoning and answer, stripped."""

    def present(self, message: Message, where: Location) -> dict[str, Any]:
        """MESSAGE in the form that the template expects."""
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
    """The form that RENDER's template expects; if it renders no calls, a form in which it renders everything else, if any."""
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
    """Call forms that the template accepts, each with the text rendered after the question and whether it contains the whole call."""
    plain = _tried(render, [ASKED, ANSWERED], tools) or ""
    for silence, arguments in product(("null", "absent", "empty"), ("object", "text")):
        way = Presentation(arguments, silence)  # type: ignore[arg-type]
        text = _tried(render, [ASKED, way.present(CALLED, Location(""))], tools)
        if text is None or any(text.count(word) > plain.count(word) for word in _WORDS):
            continue
        # The tool's description, before the question, has the same name.
        said = text[text.rfind(ASKED["content"]) :]
        yield arguments, silence, said, _NAME in said and holds_arguments(said, _ARGUMENTS)


def _around(text: str) -> tuple[str, str, str] | None:
    """Text before, between and after the name and the arguments of the call in TEXT; None unless JSON arguments follow the name."""
    name = text.find(_NAME)
    before, rest = text[:name], text[name + len(_NAME) :]
    start = rest.find("{")
    try:
        arguments, end = json.JSONDecoder().raw_decode(rest, start) if start >= 0 else (None, 0)
    except ValueError:
        return None
    # Only the name's own line: lines before it are the header of the turn.
    return (before.rpartition("\n")[2], rest[:start], rest[end:]) if arguments == _ARGUMENTS and start else None


def _reasoning(render: Render) -> dict[str, Any]:
    """The keys under which a template reads reasoning, and the text that it writes after it."""
    for keys in (REASONING, *((key,) for key in REASONING)):
        message = Presentation(reasoning=keys).present({**ANSWERED, REASONING[0]: _REASON}, Location(""))
        text = _tried(render, [ASKED, message], ())
        # A template that reads two of the keys would write the reasoning twice.
        if text is not None and text.count(_REASON) == 1 and text.count(ANSWERED["content"]) == 1:
            between = text[text.find(_REASON) + len(_REASON) : max(text.find(ANSWERED["content"]), 0)]
            # A line of dashes, or an empty text, also occurs in answers without reasoning.
            return {"reasoning": keys, "reasoning_end": between.strip() if set(between) & set("<>[]|") else ""}
    return {}


def _tried(render: Render, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str | None:
    try:
        return render(messages, tools)
    except UserError:
        return None
