"""Requests wait here for the one process that computes: those to one model with one sampling are generated as one batch."""

import asyncio
import json
import os
import re
import signal
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.errors import UserError
from engine.rows.questions import COMMAND, opening
from stages.process.parent import PARENT, named

if TYPE_CHECKING:
    from engine.rows.answers import Model

Event = Mapping[str, Any]

_LAST = ("answer", "left_out", "error", "failed")
_LINE = 2**26
"""The longest line of the process, in bytes."""


class Full(Exception):
    """Too many questions are waiting."""


@dataclass
class Ticket:
    """A question that waits for its answer, or is being answered."""

    number: int
    question: Mapping[str, Any]
    events: "asyncio.Queue[Event]" = field(default_factory=asyncio.Queue)

    @property
    def batch(self) -> str | None:
        """Questions of equal value may share a batch; None: it is generated alone.

        The last digits of log probabilities depend on the rows of a batch, and equal requests shall have equal answers.
        """
        if self.question.get("logprobs") is not None:
            return None
        return json.dumps([self.question["model"], self.question["sampling"]], sort_keys=True)


@dataclass
class Queue:
    """The process with all models, and the questions before it."""

    root: Path
    models: "Sequence[Model]"
    batch_rows: int
    """The largest number of questions in one batch."""
    most_waiting: int
    answered: int = 0
    """The number of questions that were answered."""
    ended: "asyncio.Future[str]" = field(init=False)
    """What the process said when it ended, although nobody asked it to."""
    _process: "asyncio.subprocess.Process | None" = None
    _errors: Any = field(init=False)
    _numbers: Any = field(default_factory=count)
    _waiting: deque[Ticket] = field(default_factory=deque)
    _running: dict[int, Ticket] = field(default_factory=dict)
    _busy: bool = True
    _reading: "asyncio.Task[None] | None" = None

    async def start(self, loading: Callable[[str], None]) -> None:
        """Load the models; LOADING is called with the name of each. Raises UserError if one cannot be loaded."""
        self.ended = asyncio.get_running_loop().create_future()
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - lives as long as the process
        # ^C in a terminal goes to its whole group: it shall not end answers.
        self._process = await asyncio.create_subprocess_exec(
            *COMMAND,
            cwd=self.root,
            env=os.environ | {PARENT: named()},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            process_group=0,
            limit=_LINE,
        )
        self._write(opening(self.models))
        async for event in self._events():
            if event["event"] == "ready":
                break
            loading(event["model"])
        else:
            said = await self._last_words()
            raise (
                UserError(found[1].rstrip())
                if (found := re.search(r"^error: (.*)\Z", said, re.MULTILINE | re.DOTALL))
                else RuntimeError(said)
            )
        self._busy = False
        self._reading = asyncio.create_task(self._read())

    def kill(self) -> None:
        """End the process; answers that are not complete are lost."""
        with suppress(ProcessLookupError):
            if self._process:
                self._process.send_signal(signal.SIGKILL)

    @property
    def in_flight(self) -> int:
        """The number of questions that wait or are being answered."""
        return len(self._waiting) + len(self._running)

    def ask(self, questions: Sequence[Mapping[str, Any]]) -> list[Ticket]:
        """Let QUESTIONS wait for their answers; raises Full if they are too many."""
        if len(self._waiting) + len(questions) > self.most_waiting:
            raise Full
        tickets = [Ticket(number := next(self._numbers), {**question, "number": number}) for question in questions]
        self._waiting.extend(tickets)
        self._next()
        return tickets

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """Give up TICKETS that are not answered yet: they make room for others."""
        for ticket in tickets:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            elif self._running.pop(ticket.number, None):
                self._write({"cancel": ticket.number})

    def _next(self) -> None:
        """Have the questions generated that share a batch with the one that has waited longest."""
        if self._busy or not self._waiting:
            return
        first = self._waiting[0].batch
        chosen = [ticket for ticket in self._waiting if ticket.batch == first][: self.batch_rows] if first else [self._waiting[0]]
        for ticket in chosen:
            self._waiting.remove(ticket)
            self._running[ticket.number] = ticket
        self._busy = True
        self._write({"ask": [ticket.question for ticket in chosen]})

    def _write(self, value: object) -> None:
        assert self._process and self._process.stdin
        self._process.stdin.write(json.dumps(value).encode() + b"\n")

    async def _events(self) -> AsyncIterator[Event]:
        assert self._process and self._process.stdout
        while line := await self._process.stdout.readline():
            yield json.loads(line)

    async def _read(self) -> None:
        """Hand each event of the process to its question, and the process the next batch."""
        async for event in self._events():
            match event["event"]:
                case "done":
                    self._busy = False
                    self._next()
                case "failed":
                    self._fail(event["text"])
                case kind:
                    number = event["number"]
                    ticket = self._running.pop(number, None) if kind in _LAST else self._running.get(number)
                    if ticket:
                        self.answered += kind == "answer"
                        ticket.events.put_nowait(event)
        said = await self._last_words()
        self._fail("the process that answers has ended")
        if not self.ended.done():
            self.ended.set_result(said)

    def _fail(self, text: str) -> None:
        """Tell the questions that are being answered that they are not."""
        for ticket in self._running.values():
            ticket.events.put_nowait({"event": "failed", "text": text})
        self._running.clear()

    async def _last_words(self) -> str:
        assert self._process
        status = await self._process.wait()
        self._errors.seek(0)
        return f"the process that answers ended with status {status}:\n{self._errors.read()}"
