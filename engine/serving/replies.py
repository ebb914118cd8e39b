"""Answers as OpenAI's API gives them: whole, or in chunks.

Source: https://platform.openai.com/docs/api-reference
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.serving.bodies import Asked


Event = Mapping[str, Any]


@dataclass
class Reply:
    """The reply to one request."""

    asked: "Asked"
    is_chat: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    _offsets: dict[int, int] = field(default_factory=dict)
    """By choice: the number of characters whose log probabilities were given."""

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{token_hex(12)}"

    def whole(self, answers: Sequence[Event]) -> dict[str, Any]:
        """The reply with the `answer` events of all choices."""
        choices = [self._choice(number, answer) for number, answer in enumerate(answers)]
        return self._head("chat.completion" if self.is_chat else "text_completion", choices) | {"usage": usage(answers)}

    def first(self, choice: int) -> dict[str, Any] | None:
        """The chunk before the text of a chat's CHOICE."""
        return self._chunk(choice, {"role": "assistant", "content": ""}, None, None) if self.is_chat else None

    def part(self, choice: int, event: Event) -> dict[str, Any] | None:
        """The chunk of a `text` event; None where tools are used: whether a text is a call is known at its end."""
        if self.asked.tools:
            return None
        delta = {"content": event["text"]} if self.is_chat else event["text"]
        return self._chunk(choice, delta, self._logprobs(choice, event), None)

    def last(self, choice: int, answer: Event) -> dict[str, Any]:
        """The chunk that ends CHOICE, with what the parts did not have."""
        if not self.is_chat:
            return self._chunk(choice, "", self._logprobs(choice, answer), answer["finish_reason"])
        message = self._message(answer)
        whole = ("content",) if self.asked.tools else ()
        delta = {key: value for key, value in message.items() if key in (*whole, "tool_calls", "reasoning_content") and value is not None}
        for number, call in enumerate(delta.get("tool_calls", ())):
            call["index"] = number
        return self._chunk(choice, delta, self._logprobs(choice, answer), _reason(answer))

    def usage_chunk(self, answers: Sequence[Event]) -> dict[str, Any]:
        """The chunk after all others, if the request wants the usage."""
        return self._head("chat.completion.chunk" if self.is_chat else "text_completion", []) | {"usage": usage(answers)}

    def _head(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        found = {"id": self.id, "object": kind, "created": self.created, "model": self.asked.name, "choices": choices}
        # What OpenAI names a fingerprint: equal ones give equal answers to equal requests.
        return found | {"system_fingerprint": self.asked.served.digest}

    def _chunk(self, choice: int, delta: Any, logprobs: Any, reason: str | None) -> dict[str, Any]:
        text = {"delta": delta} if self.is_chat else {"text": delta}
        found = {"index": choice, **text, "logprobs": logprobs, "finish_reason": reason}
        return self._head("chat.completion.chunk" if self.is_chat else "text_completion", [found])

    def _choice(self, number: int, answer: Event) -> dict[str, Any]:
        text = {"message": self._message(answer)} if self.is_chat else {"text": answer["answer"]}
        return {"index": number, **text, "logprobs": self._logprobs(number, answer), "finish_reason": _reason(answer)}

    def _message(self, answer: Event) -> dict[str, Any]:
        found: dict[str, Any] = {"role": "assistant", "content": answer["answer"], "refusal": None}
        if answer["reasoning"]:
            found["reasoning_content"] = answer["reasoning"]
        if answer["calls"]:
            calls = [{"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)} for call in answer["calls"]]
            found |= {
                "content": None,
                "tool_calls": [{"id": f"call_{token_hex(8)}", "type": "function", "function": call} for call in calls],
            }
        return found

    def _logprobs(self, choice: int, event: Event) -> dict[str, Any] | None:
        if not self.asked.logprobs or not (tokens := event.get("logprobs")):
            return None
        if self.is_chat:
            return {"content": [_token(one) | {"top_logprobs": [_token(other) for other in one["top"]]} for one in tokens], "refusal": None}
        offsets, at = [], self._offsets.get(choice, 0)
        for one in tokens:
            offsets.append(at)
            at += len(one["text"])
        self._offsets[choice] = at
        return {
            "tokens": [one["text"] for one in tokens],
            "token_logprobs": [one["logprob"] for one in tokens],
            "top_logprobs": [{other["text"]: other["logprob"] for other in one["top"]} for one in tokens],
            "text_offset": offsets,
        }


def _token(one: Mapping[str, Any]) -> dict[str, Any]:
    """A token with its log probability; without bytes where it is a part of a character."""
    text = one["text"]
    return {"token": text, "logprob": one["logprob"], "bytes": None if "\ufffd" in text else list(text.encode("utf-8"))}


def _reason(answer: Event) -> str:
    return "tool_calls" if answer["calls"] else str(answer["finish_reason"])


def usage(answers: Sequence[Event]) -> dict[str, int]:
    """The tokens of all choices; a prompt that several choices have in common counts for each, as it is read for each."""
    prompt, made = (sum(int(answer[key]) for answer in answers) for key in ("prompt_tokens", "tokens"))
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
