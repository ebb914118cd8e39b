"""Asks an endpoint through the official client, and sorts what comes back: an answer, a failure that may pass, a refusal of the request."""

import os
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import httpx2
import openai
from pydantic import ValidationError

from engine.errors import UserError
from stages.generate.asking.reply import Reply, parse
from stages.generate.asking.request import PATH, Request
from stages.generate.asking.wire import Wire

_NO_KEY = "none"
_SHORTEST_KEY = 8
_SHOWN = 300
_FILTERED = ("content_filter", "content_policy_violation")


class Failure(Exception):
    """Something that may pass: the request is worth another trial."""

    def __init__(self, reason: str, retry_after: float | None = None, too_many: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.too_many = reason, retry_after, too_many


class Client:
    """One endpoint; the key is read from the environment variable that the spec names, and is never shown or written."""

    def __init__(self, base_url: str, key_variable: str | None, in_flight: int, timeout: float) -> None:
        self.base_url = base_url
        self._variable = key_variable
        self._key = _key(key_variable)
        # The library's own retries are off: ours are counted, limited and shown.
        self.api = openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY,
            base_url=base_url,
            max_retries=0,
            timeout=timeout,
            http_client=Wire(base_url, in_flight, timeout, anonymous=self._key is None),
        )

    async def ask(self, request: Request) -> Reply:
        """The answer; raises Failure where another trial may help, UserError where none will."""
        return self.read(await self._post(request.body))

    async def _post(self, body: Mapping[str, Any]) -> bytes:
        try:
            # The raw response: building the client's own objects would take as long as the rest of the work.
            response: httpx2.Response = await self.api.post(PATH, cast_to=httpx2.Response, body=body)
        except openai.OpenAIError as error:
            raise self.sorted(error) from None
        return self.clean(response.content)

    def read(self, body: bytes | str) -> Reply:
        """The answer in a body; raises Failure where that is no chat completion."""
        try:
            return parse(body)
        except ValidationError as error:
            raise Failure(f"a body that is no chat completion ({error.errors(include_url=False)[0]['msg']})") from None

    def clean(self, body: bytes) -> bytes:
        """BODY without the key, should a server have repeated it."""
        if self._key is None or len(self._key) < _SHORTEST_KEY:
            return body
        return body.replace(self._key.encode(), b"***")

    def sorted(self, error: openai.OpenAIError) -> Exception:
        """Failure, or the error that the user gets: what the client library raised, in our words."""
        if isinstance(error, openai.APITimeoutError):
            return Failure("time-out")
        if not isinstance(error, openai.APIStatusError):
            return Failure(f"connection: {self._said(error.__cause__ or error)}")
        status, said = error.status_code, self._said(error)
        if status == 429 and error.code == "insufficient_quota":
            return UserError(f"{self.base_url} says that the account has no credit left: {said}", hint="add credit, then build again")
        if status in (408, 409, 425, 429) or status >= 500:
            return Failure(f"{status}", retry_after(error.response.headers), too_many=status == 429)
        return Refused(status, said) if status == 400 and error.code in _FILTERED else self._mistake(status, said)

    def _mistake(self, status: int, said: str) -> UserError:
        """The error for a request that will never be answered."""
        what = f"{self.base_url} answers with {status}: {said}"
        if status in (401, 403):
            source = f"the environment variable {self._variable}" if self._variable else "no key: set teacher.api_key_env"
            return UserError(what, hint=f"the key comes from {source}")
        if status == 404:
            return UserError(what, hint="check teacher.base_url (it usually ends in /v1) and teacher.model")
        return UserError(
            what, hint="check teacher.base_url" if status < 400 else "check the teacher's parameters against its documentation"
        )

    def _said(self, error: BaseException) -> str:
        text = self.clean(str(error).encode("utf-8", "replace")).decode()
        text = " ".join(text.split()).removeprefix(f"Error code: {getattr(error, 'status_code', '')} - ")
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

    async def close(self) -> None:
        await self.api.close()


class Refused(Exception):
    """The endpoint's own filter refused the prompt: an answer of its kind, and the same each time."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.reply = Reply("", said or f"status {status}", "content_filter", 0, 0)


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"the environment variable {variable}, which holds the teacher's API key, is not set", hint=f"run: export {variable}=…"
        )
    if not key.isascii() or not key.isprintable():
        raise UserError(f"the environment variable {variable} holds characters that no API key has", hint="set it again")
    return key


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait, which it gives as a number or as a date (RFC 9110, 10.2.3); None where it does not."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) / scale)
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time())
        except ValueError:
            continue  # neither a number nor a date says nothing
    return None
