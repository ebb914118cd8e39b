"""Answers to questions, in order: cached answers first, the others with many concurrent requests."""

import asyncio
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from engine.core.errors import Location, Problem, UserError
from stages.generate.asking.cache import Answers
from stages.generate.asking.client import Client, Failure, Refused
from stages.generate.asking.conversation import Conversation, Rules
from stages.generate.asking.limits import Circuit, Guess, Rate, Spending, backoff
from stages.generate.asking.reply import Reply
from stages.generate.asking.request import Request
from stages.generate.question import Answer, Question

_WINDOW = 8_192
"""Maximum distance between the first unanswered question and the last one read; bounds memory."""
_SLICE = 0.005
"""Seconds that the event loop runs before finished answers are yielded."""
_GRACE = 5.0
"""Seconds to wait for requests in flight after ^C, since they are billed anyway."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_UNHEARD = 256
"""Consecutive cached rows after which pending signals are handled."""


ANSWERED, ERROR, LOST = "answered", "error", "lost"
"""Outcomes of a request besides failure reasons; LOST: abandoned in flight."""


@dataclass(slots=True)
class Slot:
    """A question in progress: its conversation, the next request, and the answer once settled."""

    where: Location
    conversation: Conversation
    request: Request | None = None
    answer: Answer | None = None

    def advance(self, reply: Reply | None) -> None:
        """Send REPLY (None to start) to the conversation."""
        try:
            self.request = next(self.conversation) if reply is None else self.conversation.send(reply)
        except StopIteration as finished:
            self.answer, self.request = finished.value, None

    def advance_from(self, answers: Answers) -> None:
        """Advance while ANSWERS contains the reply to the next request."""
        while self.request and (reply := answers.find(self.request.key)):
            self.advance(reply)


@dataclass
class Limits:
    """Limits on the use of an endpoint."""

    in_flight: int
    retries: int
    give_up_after: float
    requests: Rate | None
    tokens: Rate | None
    spending: Spending
    guess: Guess
    circuit: Circuit


@dataclass
class Counts:
    """Counts of this run."""

    answered: int = 0
    cached: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    """Outcome of each request that was sent: an answer, a failure reason, or LOST."""


class Session:
    """Sends the requests of one step to one endpoint; its event loop runs only while the caller waits for an answer."""

    def __init__(self, step: str, rules: Rules, client: Client, answers: Answers, limits: Limits) -> None:
        self.counts = Counts()
        self.in_flight = 0
        self._step, self._rules, self._client, self._answers, self._limits = step, rules, client, answers, limits
        self._loop = asyncio.new_event_loop()
        self._permits = asyncio.Semaphore(limits.in_flight)
        self._under_way: dict[bytes, asyncio.Future[Reply]] = {}
        self._tasks: dict[asyncio.Task[None], bool] = {}
        """Every task, with whether its request is in flight; stopping waits for those."""
        self._resting = 0
        self._error: BaseException | None = None
        self._ending = False

    @property
    def spending(self) -> Spending:
        """What this run has spent so far."""
        return self._limits.spending

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """The answers to QUESTIONS, in order; on an error, waits for requests in flight, then raises UserError."""
        self._hear_signals()
        todo = iter(questions)
        slots: deque[Slot] = deque()
        exhausted = False
        while True:
            while not exhausted and self._hungry(slots):
                question = next(todo, None)
                exhausted = question is None
                if question is not None:
                    slots.append(self._begin(question))
            while slots and (answer := slots[0].answer) is not None:
                slots.popleft()
                self.counts.answered += 1
                yield answer
            if exhausted and not slots:
                return
            if self._tasks or self.counts.answered % _UNHEARD == 0:
                self._run(_SLICE if self._tasks else 0.0)
            if self._error:
                self._stop(_GRACE if isinstance(self._error, KeyboardInterrupt) else None)
                raise self._error

    def _hear_signals(self) -> None:
        """Let ^C and SIGTERM (from a build, or after the parent's death) stop the loop between two replies, never while one is stored."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._loop.add_signal_handler(number, self._interrupt)

    def _interrupt(self) -> None:
        self._error = self._error or KeyboardInterrupt()
        self._loop.stop()

    def _hungry(self, slots: deque[Slot]) -> bool:
        """Whether to read more questions: while cached answers come first, and until every connection is busy."""
        if slots and slots[0].answer is not None:
            return False
        return len(slots) < _WINDOW and len(self._tasks) - self._resting < 2 * self._limits.in_flight

    def _begin(self, question: Question) -> Slot:
        slot = Slot(question.where, self._rules.converse(question))
        slot.advance(None)
        slot.advance_from(self._answers)
        if slot.answer is None:
            task = self._loop.create_task(self._pursue(slot))
            self._tasks[task] = False
            task.add_done_callback(self._finished)
        else:
            self.counts.cached += 1
        return slot

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()):
            self._error = self._error or error
        if (not self._tasks or self._error) and not self._ending:
            self._loop.stop()

    def _run(self, seconds: float) -> None:
        """Run the event loop for SECONDS, or until there is nothing left to do."""
        timer = self._loop.call_later(seconds, self._loop.stop)
        self._loop.run_forever()
        timer.cancel()

    async def _pursue(self, slot: Slot) -> None:
        """Send requests about one row until it is settled."""
        try:
            while slot.request:
                slot.advance(await self._reply(slot.request))
                slot.advance_from(self._answers)
        except UserError as error:
            raise UserError(at(problem, slot.where) for problem in error.problems) from None

    async def _reply(self, request: Request) -> Reply:
        """The reply to a request; identical requests share one reply."""
        if shared := self._under_way.get(request.key):
            return await asyncio.shield(shared)
        future = self._under_way[request.key] = self._loop.create_future()
        try:
            reply = await self._pay(request)
            future.set_result(reply)
            return reply
        except UserError as error:
            future.set_exception(error)
            future.exception()  # mark as retrieved: nobody else may await it
            raise
        finally:
            future.cancel()
            del self._under_way[request.key]

    async def _pay(self, request: Request) -> Reply:
        """Send a request until it is answered, and store the reply before anything else."""
        trial = 0
        while True:
            try:
                async with self._permits:
                    return await self._sent(request)
            except Failure as failure:
                trial += not failure.too_many and not self._limits.circuit.is_open
                self._consider(failure, trial)
                rest = backoff(max(trial, 1) - 1) if failure.retry_after is None else 0.0
            self._resting += 1
            try:
                await asyncio.sleep(rest)
            finally:
                self._resting -= 1

    def _consider(self, failure: Failure, trial: int) -> None:
        """Count a failure; raises UserError if a limit is reached."""
        limits, circuit = self._limits, self._limits.circuit
        self.counts.retries[failure.reason] += 1
        if failure.retry_after is not None:
            circuit.pause(failure.retry_after)
        if trial > limits.retries:
            raise UserError(f"{self._client.base_url} failed {trial} times for this row: {failure}", hint=_KEPT)
        if (rest := failure.retry_after or 0.0) > limits.give_up_after:
            what = f"{self._client.base_url} demands a pause of {rest:.0f} s: {failure}"
            raise UserError(what, hint=f"{_KEPT}; teacher.give_up_after is {limits.give_up_after:g} s")
        if circuit.failing_for > limits.give_up_after:
            what = f"{self._client.base_url} has not answered for {circuit.failing_for:.0f} s: {failure}"
            raise UserError(what, hint=f"{_KEPT}; teacher.give_up_after is {limits.give_up_after:g} s")

    async def _sent(self, request: Request) -> Reply:
        limits = self._limits
        probing = await limits.circuit.passage()
        try:
            prompt, completion = limits.guess.prompt(request), limits.guess.completion(request)
            if limits.tokens:
                await limits.tokens.take(prompt + completion)
            if limits.requests:
                await limits.requests.take()
            # Another step may have stored the same request meanwhile.
            if known := self._answers.find(request.key):
                return known
            if self._error:
                raise asyncio.CancelledError
            if bound := limits.spending.exhausted(prompt, completion):
                raise UserError(f"the budget is exhausted: {bound}", hint=f"{_KEPT}; raise the limit to continue")
            reply = await self._transfer(request, prompt, completion)
            limits.circuit.success()
            limits.guess.learn(request, reply)
            if limits.tokens and reply.prompt_tokens:
                limits.tokens.correct(sum(reply.tokens(prompt, completion)) - prompt - completion)
            return reply
        except Failure as failure:
            (limits.circuit.refused if failure.too_many else limits.circuit.failure)()
            raise
        finally:
            if probing:
                limits.circuit.probed()

    async def _transfer(self, request: Request, prompt: float, completion: float) -> Reply:
        """The only place that sends a request; its reply is stored at once."""
        task, spending, reply, failed, outcome = asyncio.current_task(), self._limits.spending, None, (0, 0), LOST
        assert task is not None
        self._tasks[task] = True
        self.in_flight += 1
        spending.begin(prompt, completion)
        try:
            try:
                reply = await self._client.ask(request)
            except Refused as refused:
                reply = refused.reply
            unused = self._rules.unused(reply)
            outcome = unused.reason or ANSWERED if unused else ANSWERED
            self._answers.keep(request, reply, self._step)
        except Failure as failure:
            failed, outcome = failure.tokens, failure.reason
            raise
        except UserError:
            outcome = ERROR if reply is None else outcome
            raise
        finally:
            self.in_flight -= 1
            self.counts.outcomes[outcome] += 1
            spending.end(prompt, completion, reply, failed)
            if task in self._tasks:
                self._tasks[task] = False
        return reply

    def _stop(self, seconds: float | None = None) -> None:
        """Stop sending, and wait for requests in flight: they are billed anyway."""
        self._error = self._error or UserError("stopped")
        while any(self._tasks.values()) and (seconds is None or seconds > 0):
            for task in [task for task, sent in self._tasks.items() if not sent]:
                task.cancel()
            self._run(_SLICE)
            seconds = None if seconds is None else seconds - _SLICE

    def close(self) -> None:
        """Close the connections, after waiting for requests in flight for a limited time."""
        self._stop(_GRACE)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._loop.remove_signal_handler(number)
        self._ending = True
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()


_KEPT = "every answer so far is kept and will not be paid for again"


def at(problem: Problem, where: Location) -> Problem:
    """PROBLEM located at WHERE, unless it has a location."""
    return Problem(problem.what, problem.where or where, problem.hint)
