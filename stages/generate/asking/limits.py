"""Limits of requests: rates per minute, pauses that the endpoint demands, a circuit breaker, and a budget."""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiolimiter import AsyncLimiter

from stages.generate.asking.reply import Reply
from stages.generate.asking.request import Request

if TYPE_CHECKING:
    from stages.generate.asking.cache import Averages

MINUTE = 60.0
"""Window of rates, in seconds."""

FIRST_REST = 0.5
"""Approximate delay before the second trial of a request, in seconds."""

_SHARE, _BURST = 0.97, 0.01
"""Shares of a rate: sustained rate, and burst; the rest is a margin for network jitter."""
_BYTES_PER_TOKEN = 4.0  # of English text, until this endpoint reports token counts
_COMPLETION_TOKENS = 256.0


class Rate:
    """At most PER_MINUTE units in any minute: a leaky bucket slightly below the rate, with a small burst.

    A burst as large as the rate would let twice the rate through in the first minute.
    """

    def __init__(self, per_minute: float) -> None:
        self._burst = max(1.0, float(int(per_minute * _BURST)))
        self._limiter = AsyncLimiter(self._burst, self._burst / (per_minute * _SHARE) * MINUTE)
        self._owed = 0.0
        self._turn = asyncio.Lock()

    async def take(self, units: float = 1.0) -> None:
        """Wait until UNITS more are allowed, first come, first served; debts are paid first."""
        async with self._turn:
            left, self._owed = units + self._owed, 0.0
            while left > 0:
                part = min(left, self._burst)
                await self._limiter.acquire(part)
                left -= part
            self.correct(left)

    def correct(self, units: float) -> None:
        """UNITS more (fewer, if negative) were used than taken: the next caller waits longer, or less.

        Credit above the burst is lost: capacity unused in one minute cannot be used in the next."""
        self._owed = max(self._owed + units, -self._burst)


class Guess:
    """Estimates tokens of requests from the answers so far."""

    def __init__(self, known: "Averages") -> None:
        self._bytes_per_token = known.bytes_per_token or _BYTES_PER_TOKEN
        self._completion_tokens = known.completion_tokens
        self._weight = min(known.answers, 100)

    def prompt(self, request: Request) -> float:
        """Estimated tokens of the prompt."""
        return max(1.0, request.prompt_bytes / self._bytes_per_token)

    def completion(self, request: Request) -> float:
        """Estimated tokens of the answer: the mean so far, at most the request's limit."""
        expected = _COMPLETION_TOKENS if self._completion_tokens is None else self._completion_tokens
        return min(expected, float(request.most_tokens)) if request.most_tokens else expected

    def tokens(self, request: Request) -> float:
        return self.prompt(request) + self.completion(request)

    def learn(self, request: Request, reply: Reply) -> None:
        """Update the running means, in which the initial guess soon fades."""
        if not reply.prompt_tokens or reply.completion_tokens is None:
            return  # some servers report no token counts, or only one of them
        self._weight = min(self._weight + 1, 1_000)
        seen = request.prompt_bytes / reply.prompt_tokens
        self._bytes_per_token += (seen - self._bytes_per_token) / self._weight
        before = reply.completion_tokens if self._completion_tokens is None else self._completion_tokens
        self._completion_tokens = before + (reply.completion_tokens - before) / self._weight


@dataclass(frozen=True)
class Prices:
    """Prices per million tokens, in the currency of the spec."""

    input: float = 0.0
    output: float = 0.0

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1_000_000


@dataclass
class Spending:
    """Usage of this run, usage in flight, and the budget."""

    prices: Prices
    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    """Answers without complete token counts: estimates are used for them."""
    _tokens_under_way: float = 0.0
    _cost_under_way: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost(self) -> float:
        return self.prices.cost(self.prompt_tokens, self.completion_tokens)

    def exhausted(self, prompt: float, completion: float, requests: int = 1) -> str | None:
        """The budget limit that REQUESTS of these tokens, plus everything in flight, would exceed; None if within budget."""
        if self.max_requests is not None and self.requests + requests > self.max_requests:
            return f"max_requests = {self.max_requests}"
        if self.max_tokens is not None and self.tokens + self._tokens_under_way + prompt + completion > self.max_tokens:
            return f"max_total_tokens = {self.max_tokens}"
        expected = self.cost + self._cost_under_way + self.prices.cost(prompt, completion)
        if self.max_cost is not None and expected > self.max_cost:
            return f"max_cost = {self.max_cost:g}"
        return None

    def begin(self, prompt: float, completion: float) -> None:
        """Count a request in flight, with its estimated tokens."""
        self.requests += 1
        self._move(prompt, completion, 1)

    def end(self, prompt: float, completion: float, reply: Reply | None, failed: tuple[int, int] = (0, 0)) -> None:
        """Settle a request: with REPLY, or without one and FAILED tokens of prompt and answer that were billed nevertheless."""
        self._move(prompt, completion, -1)
        used = reply.tokens(prompt, completion) if reply else failed
        self.estimated += reply is not None and None in (reply.prompt_tokens, reply.completion_tokens)
        self.prompt_tokens += used[0]
        self.completion_tokens += used[1]

    def _move(self, prompt: float, completion: float, sign: int) -> None:
        self._tokens_under_way += sign * (prompt + completion)
        self._cost_under_way += sign * self.prices.cost(prompt, completion)


class Circuit:
    """Circuit breaker: opens after FAILURES consecutive failures; then one request at a time probes the endpoint."""

    def __init__(self, failures: int, cooldown: float = 5.0, longest: float = 60.0) -> None:
        self._most, self._cooldown, self._longest = failures, cooldown, longest
        self._failures = 0
        self._failing_since: float | None = None
        self._closed_until = 0.0
        self._probe = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        return self._failures >= self._most

    @property
    def failing_for(self) -> float:
        """Seconds since the first failure after the last answer."""
        return time.monotonic() - self._failing_since if self._failing_since is not None else 0.0

    def pause(self, seconds: float) -> None:
        """Send nothing for SECONDS, as the endpoint demands."""
        self._closed_until = max(self._closed_until, time.monotonic() + seconds)

    async def passage(self) -> bool:
        """Wait until a request may be sent; True if it is a probe, after which `probed` must be called."""
        while True:
            if self.is_open:
                await self._probe.acquire()
                if self.is_open:
                    await self._wait()
                    return True
                self._probe.release()
            if time.monotonic() >= self._closed_until:
                return False
            await self._wait()

    async def _wait(self) -> None:
        while (left := self._closed_until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def probed(self) -> None:
        self._probe.release()

    def success(self) -> None:
        self._failures, self._failing_since = 0, None

    def failure(self) -> None:
        """Count a failure; once the circuit is open, each one prolongs the cooldown."""
        self._failures += 1
        self._failing_since = self._failing_since if self._failing_since is not None else time.monotonic()
        if self.is_open:
            self.pause(min(self._longest, self._cooldown * 2 ** (self._failures - self._most)))

    def refused(self) -> None:
        """Count a 429: the endpoint is up, but gave no answer."""
        self._failing_since = self._failing_since if self._failing_since is not None else time.monotonic()


def backoff(trial: int, longest: float = 60.0) -> float:
    """Seconds before trial TRIAL + 1: exponential backoff with jitter, so that requests that failed together spread out."""
    return random.uniform(0.5, 1.0) * min(longest, FIRST_REST * 2**trial)  # randomness does not affect results here
