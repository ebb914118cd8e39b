"""Displays a running build: a line for every step that is restored, starts or ends, and the steps that run now."""

import signal
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from engine.build.executors.base import Finished
from engine.cli import render
from engine.core.graph import Step
from engine.plan.decide import Action, Decision
from stages.process.job import PREEMPTED

_LOG_LINES = 30
_STOPPED = (-signal.SIGTERM, -signal.SIGINT, 130, PREEMPTED)
"""Exit statuses of a step that was terminated."""


class View:
    """Lines on stderr; with several steps at once on a terminal, also a live status of what runs and waits."""

    def __init__(self, steps: int, live: bool) -> None:
        self.steps = steps
        self.done = 0
        self.running: dict[str, float] = {}
        self.first: Sequence[tuple[str, str]] = ()
        self.undone = 0
        self.moving = render.LiveStatus(self.rows) if live else None

    def __enter__(self) -> Self:
        if self.moving:
            self.moving.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.moving:
            self.moving.stop()

    def rows(self) -> list[str]:
        """The lines of the live status: progress, running steps with their duration, and waiting steps."""
        now = time.monotonic()
        names = [f"{name} ({render.duration(now - since)})" for name, since in list(self.running.items())]
        rows = [f"{self.done} of {self.steps} · running: {', '.join(names) or 'nothing'}"]
        waits = [f"{name} waits for {what}" for name, what in self.first]
        more = self.undone - len(self.running) - len(waits)
        return [*rows, *([f"{' · '.join(waits)}{f' · {more} more waiting' if more > 0 else ''}"] if waits else [])]

    def waiting(self, first: Sequence[tuple[str, str]], undone: int) -> None:
        """FIRST are the next waiting steps, each with what it waits for; UNDONE is the number of steps that run or wait."""
        self.first, self.undone = first, undone

    def decided(self, decision: Decision) -> None:
        """A step was kept or restored, or is ready to start."""
        if decision.action is not Action.RUN:
            self.done += 1
        if decision.action is Action.RESTORE:
            render.step_line("restored", decision.name, f"{self.done} of {self.steps}")

    def started(self, step: Step) -> None:
        """A step has started."""
        self.running[step.name] = time.monotonic()
        render.step_line("run", step.name, step.description)

    def moved(self, step: Step) -> None:
        """An input of a step changed while it ran, so its result is discarded."""
        render.step_line("failed", step.name, "an input changed while it ran: run the same command again")

    def ended(self, finished: Finished) -> None:
        """A step has ended; the end of a failed one's log is shown."""
        self.running.pop(finished.step.name, None)
        if finished.status == 0:
            self.done += 1
            render.step_line("done", finished.step.name, f"{render.duration(finished.seconds)} · {self.done} of {self.steps}")
            return
        if finished.status in _STOPPED:
            render.step_line("stopped", finished.step.name, "not finished; a training resumes from its last checkpoint")
            return
        render.step_line("failed", finished.step.name, f"exit status {finished.status}")
        if finished.log:
            lines = finished.log.read_text("utf-8", errors="replace").splitlines()
            render.plain("\n".join(lines[-_LOG_LINES:]))
