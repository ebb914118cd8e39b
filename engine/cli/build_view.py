"""Shows a build as it goes on: a line for every step that is decided, starts or ends, and what runs right now."""

import signal
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from engine.build.executors import Finished
from engine.cli import render
from engine.core.graph import Step
from engine.plan.decide import Action, Decision

_LOG_LINES = 30
_STOPPED = (-signal.SIGTERM, -signal.SIGINT, 130)
"""Exit statuses of a step that was asked to end."""


class View:
    """Lines on stderr; on a terminal with several steps at once also a moving part that shows what runs, and how far it is."""

    def __init__(self, steps: int, live: bool) -> None:
        self.steps = steps
        self.done = 0
        self.running: dict[str, float] = {}
        self.first: Sequence[tuple[str, str]] = ()
        self.undone = 0
        self.moving = render.Moving(self.rows) if live else None

    def __enter__(self) -> Self:
        if self.moving:
            self.moving.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.moving:
            self.moving.stop()

    def rows(self) -> list[str]:
        """What runs now, and since when."""
        now = time.monotonic()
        names = [f"{name} ({render.duration(now - since)})" for name, since in list(self.running.items())]
        rows = [f"{self.done} of {self.steps} · running: {', '.join(names) or 'nothing'}"]
        waits = [f"{name} waits for {what}" for name, what in self.first]
        more = self.undone - len(self.running) - len(waits)
        return [*rows, *([f"{' · '.join(waits)}{f' · {more} more wait' if more > 0 else ''}"] if waits else [])]

    def waiting(self, first: Sequence[tuple[str, str]], undone: int) -> None:
        """The first steps that wait, each with what it waits for; UNDONE are all that run or wait."""
        self.first, self.undone = first, undone

    def decided(self, decision: Decision) -> None:
        """A step was kept or restored, or may start."""
        if decision.action is not Action.RUN:
            self.done += 1
        if decision.action is Action.RESTORE:
            render.step_line("restored", decision.name, f"{self.done} of {self.steps}")

    def started(self, step: Step) -> None:
        """A step has started."""
        self.running[step.name] = time.monotonic()
        render.step_line("run", step.name, step.description)

    def moved(self, step: Step) -> None:
        """What a step read has changed since it started, so that its result is not kept."""
        render.step_line("failed", step.name, "what it read has changed since it started: run the same command again")

    def ended(self, finished: Finished) -> None:
        """A step has ended; the end of a failed one's log is shown."""
        self.running.pop(finished.step.name, None)
        if finished.status == 0:
            self.done += 1
            render.step_line("done", finished.step.name, f"{render.duration(finished.seconds)} · {self.done} of {self.steps}")
            return
        if finished.status in _STOPPED:
            render.step_line("stopped", finished.step.name, "not finished; a training goes on from what it has saved")
            return
        render.step_line("failed", finished.step.name, f"status {finished.status}")
        if finished.log:
            lines = finished.log.read_text("utf-8", errors="replace").splitlines()
            render.plain("\n".join(lines[-_LOG_LINES:]))
