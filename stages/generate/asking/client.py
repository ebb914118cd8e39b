"""Sends requests through the official client and classifies responses: an answer, a transient failure, a refusal, a permanent error."""

import json
import os
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from types import MappingProxyType
from typing import Any

import aiohttp
import httpx2
import openai

from engine.core.errors import UserError
from stages.generate.asking.faults import Fault, read_fault
from stages.generate.asking.reply import Broken, NoCompletion, Reply, parse
from stages.generate.asking.request import PATH, Request
from stages.generate.asking.wire import Head, Wire

_NO_KEY = "none"
_SHORTEST_KEY = 8
_SHOWN = 300
_CONTENT_STATUSES = (None, 400, 403, 422, 451, 500)
"""Statuses under which an error's message may indicate a content filter; an error code for that counts under any status."""
_MAY_PASS = (408, 409, 425, 429, 498)
"""Retryable statuses below 500; 498 is Groq's for a full tier."""


class Failure(Exception):
    """A transient failure: the request may be retried."""

    def __init__(
        self, reason: str, retry_after: float | None = None, too_many: bool = False, said: str = "", tokens: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.too_many = reason, retry_after, too_many
        self.said = said
        """The server's message, empty if there is none."""
        self.tokens = tokens
        """Tokens of prompt and answer that were billed nevertheless, as far as the server reports them."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.said}" if self.said else self.reason


class Refused(Exception):
    """The endpoint's content filter refused the question; a retry would be refused too, so it is stored like an answer."""

    def __init__(self, said: str, tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(said)
        self.reply = Reply("", said or "content filter", "content_filter", *tokens)


class Client:
    """One endpoint; the API key comes from the environment variable in the spec and is never shown or stored."""

    def __init__(self, base_url: str, key_variable: str | None, in_flight: int, timeout: float) -> None:
        self.base_url = base_url
        self._variable = key_variable
        self._key = _key(key_variable)
        self._wire = Wire(base_url, in_flight, timeout, anonymous=self._key is None)
        self._head: Head | None = None
        # The library's retries are off: ours are counted, limited and shown.
        self.api = openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY, base_url=base_url, max_retries=0, timeout=timeout, http_client=self._wire
        )

    async def ask(self, request: Request) -> Reply:
        """The answer; raises Failure (transient), Refused (content filter) or UserError (permanent)."""
        if self._head is None:
            return self.read(*await self._first(request.body))
        return self.read(*await self._next(self._head, request.body))

    async def _first(self, body: Mapping[str, Any]) -> tuple[bytes, Mapping[str, str]]:
        """Send through the official client, and keep the request head, which is the same for every question."""
        try:
            response: httpx2.Response = await self.api.post(PATH, cast_to=httpx2.Response, body=body)
        except openai.OpenAIError as error:
            raise self.sorted(error) from None
        self._head = self._wire.last_head
        return response.content, response.headers

    async def _next(self, head: Head, body: Mapping[str, Any]) -> tuple[bytes, Mapping[str, str]]:
        """Send with the official client's head: building it again would take longer than everything else."""
        try:
            got = await self._wire.transfer(head, json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
        except TimeoutError:
            raise Failure("time-out") from None
        except aiohttp.ClientError as error:
            raise Failure(f"connection: {self._shown(str(error) or type(error).__name__)}") from None
        if got.status == 200 and "content-encoding" not in got.headers:
            return got.body, got.headers
        try:
            response = httpx2.Response(got.status, headers=list(got.raw_headers), content=got.body)
        except httpx2.DecodingError as error:
            raise Failure("connection: the body cannot be decompressed", said=self._shown(str(error))) from None
        if not response.is_success:
            raise self.status(response.status_code, response.content, response.headers)
        return response.content, response.headers

    def read(self, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> Reply:
        """The answer in the body of a 2xx response; raises like `ask` if it contains an error, Failure if it is not a chat completion."""
        try:
            return parse(self.clean(body))
        except NoCompletion as error:
            raise Failure("no chat completion", said=self._shown(str(error))) from None
        except Broken as error:
            raise self._meaning(error.fault, None, headers, error.tokens) from None

    def clean(self, body: bytes) -> bytes:
        """BODY without the API key, in case a server echoes it."""
        if self._key is None or len(self._key) < _SHORTEST_KEY:
            return body
        return body.replace(self._key.encode(), b"***")

    def sorted(self, error: openai.OpenAIError) -> Exception:
        """The client library's ERROR as Failure, Refused or UserError."""
        if isinstance(error, openai.APITimeoutError):
            return Failure("time-out")
        if not isinstance(error, openai.APIStatusError):
            return Failure(f"connection: {self._shown(str(error.__cause__ or error))}")
        return self.status(error.status_code, error.response.content, error.response.headers)

    def status(self, status: int, body: bytes, headers: Mapping[str, str]) -> Exception:
        """A non-2xx response as Failure, Refused or UserError."""
        try:
            fault = read_fault(json.loads(body))
        except (ValueError, RecursionError):
            fault = read_fault(body.decode("utf-8", "replace"))
        return self._meaning(fault, status, headers)

    def _meaning(self, fault: Fault, status: int | None, headers: Mapping[str, str], tokens: tuple[int, int] = (0, 0)) -> Exception:
        """FAULT as Failure, Refused or UserError; STATUS is the response's, None for an error inside a response of status 200."""
        said, inside = self._shown(fault.said), " inside status 200" if status is None else ""
        status = fault.status if status is None else status
        if fault.content or (fault.content_words and status in _CONTENT_STATUSES):
            return Refused(said, tokens)
        if fault.no_credit or status == 402:
            return UserError(f"{self.base_url} reports that the account has no credit left: {said}", hint="add credit, then build again")
        rest = retry_after(headers)
        rest = fault.retry_after if rest is None else rest
        if status is None:
            # Neither a status nor a known code: an unspecific error may be transient.
            return Failure(fault.name or "error without a known code", rest, said="" if fault.name else said, tokens=tokens)
        if status in _MAY_PASS or status >= 500:
            return Failure(str(status), rest, status == 429, said, tokens)
        return self._mistake(status, said, inside)

    def _mistake(self, status: int, said: str, inside: str = "") -> UserError:
        """The UserError for a permanent error."""
        what = f"{self.base_url} returned status {status}{inside}: {said}"
        if status in (401, 403):
            source = f"the environment variable {self._variable}" if self._variable else "no environment variable: set teacher.api_key_env"
            return UserError(what, hint=f"the API key comes from {source}")
        if status == 404:
            return UserError(what, hint="check teacher.base_url (it usually ends in /v1) and teacher.model")
        return UserError(what, hint="check teacher.base_url" if status < 400 else "check the teacher's parameters and the prompt's length")

    def _shown(self, said: str) -> str:
        """SAID as one shortened line without the API key."""
        text = " ".join(self.clean(said.encode("utf-8", "replace")).decode().split())
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

    async def close(self) -> None:
        await self.api.close()


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        what = f"the environment variable {variable} (teacher.api_key_env), which holds the teacher's API key, is not set"
        raise UserError(what, hint=f"run: export {variable}=…")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"the environment variable {variable} contains characters that are invalid in an API key", hint="set it again")
    return key


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait from Retry-After, given as a number or a date (RFC 9110, 10.2.3); None without a valid header."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) / scale)
        except ValueError:
            pass  # a date, then
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time())
        except ValueError:
            continue  # neither a number nor a date: ignored
    return None
