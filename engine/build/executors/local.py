"""Runs steps on this machine: one at a time in this terminal, or several in parallel."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from engine.build.executors.base import Finished
from engine.build.forks import Fork, Forks
from engine.core.graph import Step
from engine.dvc.dvcfile import TEMPORARY, Entry
from stages.process.parent import PARENT, named
from stages.process.starting import ours

if TYPE_CHECKING:
    from engine.plan.decide import Plan

_POLL_SECONDS = 0.005
_GRACE_SECONDS = 15.0


@dataclass
class _Process:
    step: Step
    process: subprocess.Popen[bytes] | Fork
    started: float
    log: Path | None

    def finished(self) -> Finished:
        return Finished(self.step, self.process.wait(), time.monotonic() - self.started, self.log)


@dataclass
class Local:
    """Processes on this machine: at most JOBS at once, of which at most SLOTS[slot] use a slot; those that FORKS can start are forks."""

    root: Path
    environment: Mapping[str, str]
    jobs: int = 1
    slots: Mapping[str, int] = field(default_factory=dict)
    command: Callable[[Step], list[str]] = lambda step: ours("stages", step.kind_name, step.name)
    forks: Forks | None = None
    detaches: bool = False
    keeps_going: bool = False
    _running: list[_Process] = field(default_factory=list)

    def check(self, steps: Sequence[Step], plan: "Plan") -> None:
        """What this machine lacks is found by `engine.build.machine`."""

    def free(self, step: Step) -> bool:
        """Whether a process and the step's slot are free."""
        same = sum(p.step.kind.slot == step.kind.slot for p in self._running)
        return len(self._running) < self.jobs and same < self.slots.get(step.kind.slot, self.jobs)

    def start(self, step: Step, read: Mapping[str, Entry]) -> None:
        """Start a process that ends when this one does, however this one ends (see stages.process.parent)."""
        log = self._log(step)
        output = log.open("wb") if log else None
        environment = {**self.environment, PARENT: named()}
        try:
            process = (self.forks and self.forks.start(step, output)) or subprocess.Popen(
                self.command(step), cwd=self.root, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        finally:
            if output:
                output.close()
        self._running.append(_Process(step, process, time.monotonic(), log))

    def launch(self) -> None:
        """Nothing is held back."""

    def _log(self, step: Step) -> Path | None:
        """The log file of a step that runs in parallel with others; None with one job, whose steps write to the terminal."""
        if self.jobs == 1:
            return None
        folder = self.root / TEMPORARY / "adapterbuild"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{step.name}.log"

    def wait(self) -> list[Finished]:
        """Wait until at least one step has ended; returns all that have."""
        while not (ended := [p for p in self._running if p.process.poll() is not None]):
            time.sleep(_POLL_SECONDS)
        self._running = [p for p in self._running if p not in ended]
        return [p.finished() for p in ended]

    def stop(self, asked: bool = True) -> list[Finished]:
        """Send SIGTERM to every process, and SIGKILL to those that still run after 15 seconds."""
        for running in self._running:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        for running in self._running:
            try:
                running.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
        ended, self._running = self._running, []
        return [p.finished() for p in ended]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.forks:
            self.forks.close()


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
