"""Displays a running build: a line for every step that is restored, starts or ends, and the steps that run now."""

import signal
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from engine.build.executors.base import Finished
from engine.cli import render
from engine.core.graph import Step
from engine.plan.decide import Action, Decision
from stages.process.job import PREEMPTED
from stages.process.progress import seconds_left
from stages.process.saved import Saved

_LOG_LINES = 30
_STOPPED = (-signal.SIGTERM, -signal.SIGINT, 130, PREEMPTED)
"""Exit statuses of a step that was terminated."""


_BAR = 24
"""Characters of the bar."""
_SHOWN = 8
"""Running steps that have a line."""


class View:
    """Lines on stderr; on a terminal also a bar of the whole build: LIVE, with what runs and waits below it.

    A build that is not LIVE has steps that write to the terminal themselves: the bar is the last line, and they write above it. EXPECTED
    are the steps that may run, each with the seconds that it took last time (None if it was never timed here) and how many of its sort run
    at once. SAID gives the last line of progress of a step that runs since a time.
    """

    def __init__(
        self,
        steps: int,
        live: bool,
        expected: Mapping[str, tuple[float | None, int]] | None = None,
        said: Callable[[str, float], str] = lambda name, since: "",
    ) -> None:
        self.steps = steps
        self.expected = dict(expected or {})
        self.said = said
        self.done = 0
        self.running: dict[str, float] = {}
        self.earlier: dict[str, float] = {}
        """What earlier attempts of running steps took, in seconds."""
        self.settled: set[str] = set()
        """Steps that nothing waits for any more."""
        self.first: Sequence[tuple[str, str]] = ()
        self.undone = 0
        self.live = live
        self.moving = render.LiveStatus(self.rows) if live else render.StatusLine(lambda: self.bar)

    def __enter__(self) -> Self:
        if self.live:
            self.moving.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.moving.stop()

    @property
    def left(self) -> str:
        """How long the steps that are not done will take, as far as earlier runs tell; empty if nothing is known of them."""
        now, unknown, most = time.time(), 0, 0.0
        seconds: dict[int, float] = defaultdict(float)
        for name, (once, at_once) in list(self.expected.items()):
            since = self.running.get(name, now)
            own = seconds_left(self.said(name, since)) if name in self.running else None
            unknown += once is None and own is None
            # What a running step says of itself counts. One that says nothing and takes longer than last time is about to end.
            rest = max(0.0, (once or 0.0) - (now - since)) if own is None else own
            seconds[at_once] += rest
            most = max(most, rest)
        # The steps of which fewest run at once, such as trainings on one device, may take longer than all together.
        longest = max((sum(value for other, value in seconds.items() if other <= limit) / limit for limit in seconds), default=0.0)
        longest = max(longest, most)
        parts = [f"about {render.duration(longest)} left"] if len(self.expected) > unknown else []
        return " + ".join([*parts, *([f"{unknown} never timed here"] if unknown else [])])

    @property
    def bar(self) -> str:
        """How many steps are done, as a bar and in numbers, and the time left."""
        filled = _BAR * self.done // max(1, self.steps)
        return " · ".join(part for part in (f"{'█' * filled}{'░' * (_BAR - filled)} {self.done} of {self.steps}", self.left) if part)

    def rows(self) -> list[str]:
        """The lines of the live status: a bar with the time left, running steps with what they say, and waiting steps."""
        now, running = time.time(), list(self.running.items())
        rows = [self.bar]
        rows += [
            "  ".join(part for part in (f"  {name}", render.duration(now - since), self.said(name, since)) if part)
            for name, since in running[:_SHOWN]
        ]
        rows += [f"  {len(running) - _SHOWN} more running"] if len(running) > _SHOWN else []
        waits = [self._waits(name, what) for name, what in self.first]
        more = self.undone - len(self.running) - len(waits)
        return [*rows, *([f"{' · '.join(waits)}{f' · {more} more waiting' if more > 0 else ''}"] if waits else [])]

    def _waits(self, name: str, what: str) -> str:
        left = [one for one in what.split(", ") if one not in self.settled]
        return f"{name} waits for {', '.join(left)}" if left else f"{name} is starting"

    def waiting(self, first: Sequence[tuple[str, str]], undone: int) -> None:
        """FIRST are the next waiting steps, each with what it waits for; UNDONE is the number of steps that run or wait."""
        self.first, self.undone = first, undone

    def decided(self, decision: Decision) -> None:
        """A step was kept or restored, or is ready to start."""
        if decision.action is not Action.RUN:
            self.done += 1
            self.settled.add(decision.name)
            self.expected.pop(decision.name, None)
        if decision.action is Action.RESTORE:
            render.step_line("restored", decision.name, f"{self.done} of {self.steps}")

    def started(self, step: Step, resumes: Saved | None = None) -> None:
        """A step has started; RESUMES is the checkpoint from which it goes on."""
        if not self.live:
            self.moving.start()
        self.running[step.name] = time.time()
        self.earlier[step.name] = resumes.seconds if resumes else 0.0
        render.step_line("run", step.name, f"{step.description} · {resumes}" if resumes else step.description)

    def moved(self, step: Step) -> None:
        """An input of a step changed while it ran, so its result is discarded."""
        render.step_line("failed", step.name, "an input changed while it ran: run the same command again")

    def ended(self, finished: Finished) -> None:
        """A step has ended; the end of a failed one's log is shown."""
        self.running.pop(finished.step.name, None)
        if finished.status == 0:
            self.done += 1
            self.settled.add(finished.step.name)
            self.expected.pop(finished.step.name, None)
            earlier = self.earlier.pop(finished.step.name, 0.0)
            took = render.duration(finished.seconds + earlier)
            took += f", {render.duration(earlier)} of it before it was stopped" if earlier else ""
            took += f" on {finished.elsewhere}" if finished.elsewhere else ""
            parts = (took, f"{self.done} of {self.steps}", self.left)
            render.step_line("done", finished.step.name, " · ".join(part for part in parts if part))
            return
        if finished.status in _STOPPED:
            render.step_line("stopped", finished.step.name, "not finished; a training resumes from its last checkpoint")
            return
        where = f" on {finished.elsewhere}" if finished.elsewhere else ""
        render.step_line("failed", finished.step.name, finished.why or f"exit status {finished.status}{where}")
        if finished.log:
            lines = finished.log.read_text("utf-8", errors="replace").splitlines()
            render.plain("\n".join(lines[-_LOG_LINES:]))
