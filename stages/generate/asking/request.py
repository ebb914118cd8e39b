"""One request to a chat endpoint, and the cache key of its answer."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stages.process.hashing import canonical

Message = Mapping[str, str]
PATH = "/chat/completions"


@dataclass(frozen=True)
class Request:
    """A whole request: the endpoint and every field of the body; ATTEMPT distinguishes repetitions of one question."""

    endpoint: str
    body: Mapping[str, Any]
    attempt: int = 0

    @cached_property
    def key(self) -> bytes:
        """sha256 of everything that decides the answer (not the API key)."""
        whole = {"endpoint": self.endpoint, "path": PATH, "body": self.body}
        return hashlib.sha256(canonical(whole | {"attempt": self.attempt} if self.attempt else whole)).digest()

    @cached_property
    def prompt_bytes(self) -> int:
        """UTF-8 bytes of all messages, from which the number of tokens is estimated."""
        return sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in self.body["messages"])

    @property
    def most_tokens(self) -> int | None:
        """The request's limit on tokens of the answer; None if unlimited."""
        stated = [self.body.get(name) for name in ("max_tokens", "max_completion_tokens")]
        return next((value for value in stated if isinstance(value, int)), None)


@dataclass(frozen=True)
class Shape:
    """The fields that all requests of a task share."""

    endpoint: str
    fields: Mapping[str, Any]

    def request(self, messages: Sequence[Message], attempt: int = 0) -> Request:
        """The request with MESSAGES."""
        return Request(self.endpoint, {**self.fields, "messages": list(messages)}, attempt)


def opening(system: str, prompt: str) -> list[Message]:
    """The messages of a question; an empty system prompt is omitted."""
    first: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": prompt}]
