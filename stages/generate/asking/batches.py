"""Questions through the provider's batch API: submitted, polled, collected; a submitted batch is never lost."""

import asyncio
import hashlib
import io
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, TypeVar

import openai
from openai.types import Batch

from engine.core.errors import UserError
from stages.generate.asking.cache import Answers
from stages.generate.asking.client import Client, Failure, Refused
from stages.generate.asking.conversation import Rules
from stages.generate.asking.limits import Spending, backoff
from stages.generate.asking.reply import Reply
from stages.generate.asking.request import Request
from stages.generate.asking.session import ANSWERED, ERROR, Counts, Limits, Slot, at
from stages.generate.question import Answer, Question
from stages.rows.text import shorten

T = TypeVar("T")

LARGEST = 50_000
"""Maximum requests per batch, from the provider's documentation; also bounds memory."""
_LARGEST_FILE = 190_000_000  # bytes; the documented limit is 200 MB
_ROUNDS = 3
_PATH: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_MARK = "adapterbuild"
_OVER = ("completed", "expired", "failed", "cancelled")
_KEY_BYTES = 32  # length of a request's key, a sha256
_FETCHES = 3  # downloads of a truncated result file; then its complete lines are used
_LISTED = 1_000  # batches searched for one whose id was never received


class BatchSession:
    """Like Session, through batches: the rows of one batch are settled before the next rows are read."""

    def __init__(self, step: str, rules: Rules, client: Client, answers: Answers, limits: Limits, poll: float) -> None:
        self.counts, self.in_flight = Counts(), 0
        self._step, self._rules, self._client, self._answers, self._limits, self._poll = step, rules, client, answers, limits, poll
        self._loop = asyncio.new_event_loop()
        self._mistakes: dict[bytes, UserError] = {}
        """Permanent errors of requests, by key."""
        self._passing: list[Failure] = []
        """Transient failures among the requests of the last batch."""

    @property
    def spending(self) -> Spending:
        """What this run has spent so far."""
        return self._limits.spending

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """The answers to QUESTIONS, in order."""
        self._loop.run_until_complete(self._collect_open())
        todo = iter(questions)
        while slots := list(self._portion(todo)):
            self._settle(slots)
            for slot in slots:
                assert slot.answer is not None
                self.counts.answered += 1
                yield slot.answer

    def _portion(self, todo: Iterator[Question]) -> Iterator[Slot]:
        """The next questions, as many as fit in one batch."""
        waiting, size = 0, 0
        for question in todo:
            slot = Slot(question.where, self._rules.converse(question))
            slot.advance(None)
            slot.advance_from(self._answers)
            self.counts.cached += slot.request is None
            yield slot
            if slot.request:
                waiting, size = waiting + 1, size + len(_line(slot.request))
            if waiting >= LARGEST or size >= _LARGEST_FILE:
                return

    def _settle(self, slots: Sequence[Slot]) -> None:
        """Send batches until every slot is settled: usually one, and a second for retried JSON answers."""
        failed = 0
        while requests := {slot.request.key: slot.request for slot in slots if slot.request}:
            before = len(requests)
            fault = self._loop.run_until_complete(self._one(list(requests.values())))
            for slot in slots:
                if slot.request and (mistake := self._mistakes.get(slot.request.key)):
                    raise UserError(at(problem, slot.where) for problem in mistake.problems)
                slot.advance_from(self._answers)
            if not fault:
                continue
            failed += 1
            # A batch without any answer will not do better next time, unless its requests failed one by one with transient errors.
            hopeless = not self._passing and sum(slot.request is not None for slot in slots) == before
            rest = max((backoff(failed - 1) if one.retry_after is None else one.retry_after for one in self._passing), default=0.0)
            if hopeless or failed >= _ROUNDS or rest > self._limits.give_up_after:
                raise UserError(f"{self._client.base_url} left batch requests unanswered: {fault}", hint=_KEPT)
            self._loop.run_until_complete(asyncio.sleep(rest))

    async def _one(self, requests: Sequence[Request]) -> str | None:
        """Send one batch and collect it; returns the error of unanswered requests, None if all were answered."""
        self._mistakes.clear()
        self._passing.clear()
        name = hashlib.sha256(b"".join(sorted(request.key for request in requests))).hexdigest()[:32]
        guess = self._limits.guess
        prompt, completion = sum(map(guess.prompt, requests)), sum(map(guess.completion, requests))
        if bound := self.spending.exhausted(prompt, completion, len(requests)):
            raise UserError(
                f"a batch of {len(requests):,} requests would exceed the budget: {bound}", hint=f"{_KEPT}; raise the limit to continue"
            )
        model = str(requests[0].body["model"])
        # Recorded before sending, so that a batch whose id is never received is searched for, not paid for again.
        self._answers.keep_batch(name, self._client.base_url, model, None)
        file = await self._patiently(lambda: self._client.api.files.create(file=("requests.jsonl", _file(requests)), purpose="batch"))
        batch = await self._patiently(
            lambda: self._client.api.batches.create(
                input_file_id=file.id,
                endpoint=_PATH,
                completion_window="24h",
                metadata={_MARK: name},
            )
        )
        self._answers.keep_batch(name, self._client.base_url, model, batch.id)
        self.in_flight = len(requests)
        return await self._finish(name, model, batch, {request.key: request for request in requests})

    async def _collect_open(self) -> None:
        """Collect the batches of earlier runs first: they are paid for, whether or not these rows still need them."""
        for name, model, identity in self._answers.open_batches(self._client.base_url):
            batch = await self._find(name, identity)
            if batch is None:
                self._answers.forget_batch(name)
            else:
                await self._finish(name, model, batch, {})

    async def _retrieved(self, identity: str) -> Batch:
        return await self._patiently(lambda: self._client.api.batches.retrieve(identity))

    async def _find(self, name: str, identity: str | None) -> Batch | None:
        """A batch by its id, or by our metadata if the id was never received; None if it was never created."""
        if identity is not None:
            return await self._retrieved(identity)

        async def search() -> Batch | None:
            seen = 0
            async for batch in self._client.api.batches.list(limit=100):
                if (batch.metadata or {}).get(_MARK) == name:
                    return batch
                if (seen := seen + 1) >= _LISTED:
                    break
            return None

        return await self._patiently(search)

    async def _finish(self, name: str, model: str, batch: Batch, requests: dict[bytes, Request]) -> str | None:
        """Wait for a batch and store all its answers in one transaction; returns the error of unanswered requests, if any."""
        while batch.status not in _OVER:
            await asyncio.sleep(self._poll)
            batch = await self._retrieved(batch.id)
        fault = "; ".join(error.message or "" for error in (batch.errors and batch.errors.data) or []) or None
        lines = [line for file in (batch.output_file_id, batch.error_file_id) if file for line in await self._lines(file)]
        with self._answers.at_once():
            for line in lines:
                fault = self._keep(line, model, requests) or fault
            self._answers.forget_batch(name)
        self.in_flight = 0
        return fault or (None if batch.status == "completed" else f"the batch is {batch.status}")

    def _keep(self, line: dict[str, Any], model: str, requests: dict[bytes, Request]) -> str | None:
        """Store one answer of a batch, or return the reason why there is none; a malformed line never affects other answers."""
        try:
            key = bytes.fromhex(line["custom_id"])
        except (KeyError, TypeError, ValueError):
            key = b""
        if len(key) != _KEY_BYTES:
            return f"a result line does not answer any request: {shorten(json.dumps(line))}"
        request, guess, failed = requests.get(key), self._limits.guess, (0, 0)
        expected = (guess.prompt(request), guess.completion(request)) if request else (0.0, 0.0)
        self.spending.begin(*expected)
        reply, fault = None, None
        try:
            reply = self._read(line)
        except Refused as refused:
            reply = refused.reply
        except Failure as failure:
            self.counts.retries[failure.reason] += 1
            self._passing.append(failure)
            outcome, fault, failed = failure.reason, str(failure), failure.tokens
        except UserError as error:
            outcome, fault = ERROR, error.problems[0].what
            self._mistakes[key] = error
        if reply:
            unused = self._rules.unused(reply)
            outcome = (unused and unused.reason) or ANSWERED
            if request:
                guess.learn(request, reply)
            self._answers.keep_under(key, self._client.base_url, model, self._step, request.prompt_bytes if request else 0, reply)
        self.counts.outcomes[outcome] += 1
        self.spending.end(*expected, reply, failed)
        return fault

    def _read(self, line: dict[str, Any]) -> Reply:
        """The answer in a result line, from its response and status, or from an error in place of a response."""
        response, error = line.get("response"), line.get("error")
        if not isinstance(response, dict) or response.get("body") is None:
            return self._client.read(json.dumps({"error": error or "neither response nor error"}).encode())
        body, status = response["body"], response.get("status_code")
        raw = (body if isinstance(body, str) else json.dumps(body)).encode("utf-8", "surrogatepass")
        if not isinstance(status, int) or 200 <= status < 300:
            return self._client.read(raw)
        raise self._client.status(status, raw, {})

    async def _lines(self, file: str) -> list[dict[str, Any]]:
        """The lines of a result file; a truncated file is downloaded again, because its answers are paid for."""
        trial = 0
        while True:
            content = await self._patiently(lambda: self._client.api.files.content(file))
            found, broken = [], 0
            for line in self._client.clean(content.content).split(b"\n"):
                try:
                    value = json.loads(line) if line.strip() else None
                except (ValueError, RecursionError):
                    broken += 1
                else:
                    found += [value] if isinstance(value, dict) else []
            if not broken or trial >= min(self._limits.retries, _FETCHES):
                return found
            self.counts.retries["file of results not whole"] += 1
            await asyncio.sleep(backoff(trial))
            trial += 1

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of CALL, retried on transient failures."""
        trial, circuit = 0, self._limits.circuit
        while True:
            try:
                result = await call()
                circuit.success()
                return result
            except openai.OpenAIError as error:
                failure = self._client.sorted(error)
                circuit.refused()
                if not isinstance(failure, Failure):
                    raise failure from None
                self.counts.retries[failure.reason] += 1
                if trial >= self._limits.retries or circuit.failing_for > self._limits.give_up_after:
                    what = f"{self._client.base_url} failed {trial + 1} times: {failure.reason}"
                    raise UserError(what, hint=f"{_KEPT}; a submitted batch is collected by the next run") from None
                await asyncio.sleep(backoff(trial) if failure.retry_after is None else failure.retry_after)
                trial += 1

    def close(self) -> None:
        """Close the connections; a pending batch is collected by the next run."""
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


_KEPT = "every answer so far is kept and will not be paid for again"


def _line(request: Request) -> bytes:
    asked = {"custom_id": request.key.hex(), "method": "POST", "url": _PATH, "body": request.body}
    return json.dumps(asked, ensure_ascii=True).encode() + b"\n"


def _file(requests: Sequence[Request]) -> io.BytesIO:
    return io.BytesIO(b"".join(map(_line, islice(requests, LARGEST))))
