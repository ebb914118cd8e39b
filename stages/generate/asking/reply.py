"""Parses chat completions of all dialects: a complete answer is used whatever surrounds it; anything else is never taken for one."""

import json
import math
import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from stages.generate.asking.faults import Fault, fault_in
from stages.rows.text import shorten


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, with everything that decides whether it is used, and its token counts."""

    text: str
    """Text of the answer, without reasoning; empty if there is none."""
    refusal: str | None
    """The refusal message, if the endpoint returns one in a separate field."""
    finish_reason: str | None
    """The endpoint's finish reason; None if missing; NOT_TEXT if the answer contains anything but text."""
    prompt_tokens: int | None
    """None if not reported."""
    completion_tokens: int | None
    """All generated tokens, reasoning included; None if not reported."""

    def tokens(self, prompt: float, completion: float) -> tuple[int, int]:
        """Tokens of prompt and answer: as reported, or as estimated by PROMPT and COMPLETION."""
        return (
            round(prompt) if self.prompt_tokens is None else self.prompt_tokens,
            round(completion) if self.completion_tokens is None else self.completion_tokens,
        )


class End(Enum):
    """What a finish_reason says about the answer."""

    WHOLE = auto()
    CUT_OFF = auto()
    REFUSED = auto()
    CALL = auto()
    """A tool call: there is no answer yet."""
    NOT_TEXT = auto()
    FAILED = auto()
    """The server aborted; a retry may succeed."""
    UNKNOWN = auto()
    UNTOLD = auto()


NOT_TEXT = "not_text"
"""finish_reason of an answer with images, audio, or parts of unknown type."""

WORDS: dict[End, str] = {
    # OpenAI; Together; TGI and watsonx; Anthropic; Cohere. Case and `_` and `-` do not count.
    End.WHOLE: "stop eos eos_token end_turn stop_sequence complete completed finished",
    # OpenAI; Anthropic and Gemini; Mistral; Anthropic and GLM; watsonx; others that say which bound.
    End.CUT_OFF: "length max_tokens model_length model_context_window_exceeded token_limit max_length max_output_tokens "
    "max_completion_tokens context_length context_length_exceeded incomplete time_limit",
    # OpenAI and Azure; Gemini; Anthropic; Cohere; Bedrock; GLM.
    End.REFUSED: "content_filter content_filtered safety recitation blocklist prohibited_content spii image_safety model_armor "
    "refusal refused error_toxic guardrail_intervened guardrails sensitive moderation",
    End.CALL: "tool_calls tool_call function_call tool_use",
    End.NOT_TEXT: NOT_TEXT,
    # OpenRouter, Mistral, vLLM; SGLang and vLLM; DeepSeek; GLM.
    End.FAILED: "error abort aborted cancelled insufficient_system_resource network_error",
}
"""Known values of finish_reason; also listed in docs/how-to/generate-with-a-chat-api.md."""


@lru_cache(1_000)
def _bare(word: str) -> str:
    """WORD normalised: `FinishReason.MAX_TOKENS`, `max-tokens` and `maxTokens` are equal."""
    return re.sub(r"[\W_]", "", word.strip(" .").rpartition(".")[2].lower())


_ENDS = {_bare(word): end for end, words in WORDS.items() for word in words.split()}


def end_of(finish_reason: str | None, also_whole: frozenset[str] = frozenset()) -> End:
    """The meaning of FINISH_REASON; unknown values do not end a complete answer. ALSO_WHOLE: further values that do, `none` for None."""
    word = _bare(finish_reason or "")
    if (word or "none") in also_whole:
        return End.WHOLE
    return _ENDS.get(word, End.UNKNOWN) if word else End.UNTOLD


def whole_words(words: tuple[str, ...]) -> frozenset[str]:
    """WORDS normalised for `end_of`."""
    return frozenset(map(_bare, words))


class NoCompletion(ValueError):
    """The body is neither a chat completion nor an error."""


class Broken(Exception):
    """An error in place of an answer, whatever the response's status, and the tokens that it used."""

    def __init__(self, fault: Fault, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        super().__init__(fault.said)
        self.fault, self.tokens = fault, (prompt_tokens, completion_tokens)


def parse(body: bytes | str) -> Reply:
    """The first choice of a chat completion; raises NoCompletion if BODY is not one, and Broken if it contains an error."""
    text = body if isinstance(body, str) else body.decode("utf-8", "backslashreplace")
    try:
        if isinstance(body, bytes):
            text = body.decode(json.detect_encoding(body))  # strict: a replaced character would change the answer
        whole = _streamed(text) if text.lstrip().startswith(("data:", "event:", ":")) else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoCompletion(f"not JSON: {str(error)[:80]}: {shorten(text[:80], 60)}" if text.strip() else "the body is empty") from None
    if isinstance(whole, list) and len(whole) == 1:
        whole = whole[0]  # Gemini's endpoint wraps its errors in a list
    if not isinstance(whole, dict):
        raise NoCompletion("no object")
    usage, choices = _usage(whole.get("usage")), whole.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else choices if isinstance(choices, dict) else None
    if fault := fault_in(whole, alone=not choice):
        raise Broken(fault, *(tokens or 0 for tokens in usage))
    if not isinstance(choice, dict):
        raise NoCompletion(f"it has no choices: {shorten(json.dumps(whole)[:120])}")
    if choice.get("error") and (fault := fault_in(choice)):
        raise Broken(fault, *(tokens or 0 for tokens in usage))
    finish_reason = _finish_reason(choice)
    # Some gateways use the field names of streamed chunks, or of the older completions API, in complete answers.
    message = next((choice[name] for name in ("message", "delta") if isinstance(choice.get(name), dict)), {"content": choice.get("text")})
    if finish_reason is None and message == {"content": None}:
        raise NoCompletion("its choice has neither message nor finish_reason")
    said = _Said()
    said.read(message.get("content"))
    refusal = message.get("refusal")
    if refusal:
        said.refusals.append(refusal if isinstance(refusal, str) else json.dumps(refusal))
    end = end_of(finish_reason)
    if end is End.FAILED:
        # An error finish reason is treated like status 5xx: the server started and could not finish.
        raise Broken(Fault(f"finish_reason {finish_reason}", name=f"finish_reason {finish_reason}"), *(tokens or 0 for tokens in usage))
    if end in (End.WHOLE, End.UNKNOWN, End.UNTOLD):
        if message.get("tool_calls") or message.get("function_call") or said.calls:
            finish_reason = "tool_calls"
        elif said.other:
            finish_reason = NOT_TEXT
    text = "".join(said.texts)
    if usage == (0, 0) and text.strip():
        usage = (None, None)  # some servers report no usage
    return Reply(text, "".join(said.refusals) or None, finish_reason, *usage)


def _streamed(text: str) -> dict[str, Any]:
    """The completion in server-sent events (from gateways that stream unrequested); raises ValueError if they are truncated."""
    whole: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    contents: list[object] = []
    message: dict[str, Any] = {"content": contents}
    done = False
    for line in text.split("\n"):
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        done = done or data == "[DONE]"
        event = None if data in ("", "[DONE]") else json.loads(data)
        if not isinstance(event, dict):
            continue
        whole |= {name: value for name, value in event.items() if value is not None and name != "choices"}
        parts = event.get("choices")
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, dict) or part.get("index") not in (0, None):
                continue
            choice |= {name: value for name, value in part.items() if value is not None}
            delta = part.get("delta")
            for name, value in delta.items() if isinstance(delta, dict) else ():
                if name == "content":
                    contents.append(value)
                elif value:
                    message[name] = message[name] + value if name == "refusal" and isinstance(message.get(name), str) else value
    if not (done or choice.get("finish_reason") or whole.get("error")):
        raise ValueError("the events break off")
    return whole | ({"choices": [choice | {"message": message, "delta": None}]} if choice else {})


def _finish_reason(choice: dict[str, Any]) -> str | None:
    """The choice's finish reason; its provider's instead if it has none, or if only the provider's says that the answer is incomplete."""
    words = []
    for name in ("finish_reason", "native_finish_reason"):
        word = choice.get(name)
        word = word.get("type") if isinstance(word, dict) else word
        # A value of another type is shown with its type, so that `["stop"]` is not taken for `stop`.
        words.append(word if isinstance(word, str | None) else f"{type(word).__name__} {word}")
    own, native = words
    if not (own or "").strip():
        return native
    return native if end_of(own) is End.WHOLE and end_of(native) in (End.CUT_OFF, End.REFUSED, End.FAILED) else own


class _Said:
    """The content of a message: text, a list of parts, or nothing."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.refusals: list[str] = []
        self.calls = self.other = False

    def read(self, content: object) -> None:
        """Add a content or a part of one."""
        if content is None:
            return
        if isinstance(content, str):
            self.texts.append(content)
        elif isinstance(content, list):
            for part in content:
                self.read(part)
        elif isinstance(content, dict):
            self._read_part(content)
        else:
            self.other = True

    def _read_part(self, part: dict[str, Any]) -> None:
        kind = part.get("type")
        word, text = _bare(kind) if isinstance(kind, str) else "", part.get("text")
        if word == "refusal":
            self.refusals.append(str(part.get("refusal") or text or "refusal"))
        elif word in ("text", "outputtext", "") and isinstance(text, str):
            self.texts.append(text)
        elif word in ("thinking", "reasoning", "redactedthinking", "reasoningtext", "summarytext", "reference"):
            pass  # accompanies the answer and is not part of its text
        elif word in ("tooluse", "toolcall", "toolcalls", "functioncall"):
            self.calls = True
        else:
            self.other = True


def _usage(usage: object) -> tuple[int | None, int | None]:
    """Tokens of prompt and answer, each None if not reported."""
    if not isinstance(usage, dict):
        return None, None
    prompt = _count(usage.get("prompt_tokens", usage.get("input_tokens")))
    completion = _count(usage.get("completion_tokens", usage.get("output_tokens")))
    total = _count(usage.get("total_tokens"))
    if total is not None:
        if prompt is None and completion is not None and total >= completion:
            prompt = total - completion
        elif prompt is not None and total > prompt:
            # Gemini and Grok exclude reasoning from completion_tokens but count and bill it in total_tokens.
            completion = max(completion or 0, total - prompt)
    return prompt, completion


def _count(value: object) -> int | None:
    """A token count of any type; None if invalid."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,15}(\.0*)?", value.strip(), re.ASCII):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value < 2**53:
        return None
    return int(value)
