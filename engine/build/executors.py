"""Where steps run: one after another in this terminal, or several at once on this machine; a cluster would be a third."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.core.graph import Step
from engine.dvc.dvcfile import TEMPORARY
from stages.process.parent import PARENT, named
from stages.process.starting import ours

_POLL_SECONDS = 0.005
_GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Finished:
    """A step whose process has ended, with its exit status and the seconds it took."""

    step: Step
    status: int
    seconds: float
    log: Path | None = None


class Executor(Protocol):
    """Starts steps and says which have ended; it neither decides nor records."""

    def free(self, step: Step) -> bool:
        """Whether STEP could start now."""

    def start(self, step: Step) -> None:
        """Start a step for which there is room."""

    def wait(self) -> list[Finished]:
        """Wait until at least one step has ended; all that have."""

    def stop(self) -> list[Finished]:
        """End everything that runs, gently at first; all that has ended."""


@dataclass
class _Process:
    step: Step
    process: subprocess.Popen[bytes]
    started: float
    log: Path | None

    def finished(self) -> Finished:
        return Finished(self.step, self.process.wait(), time.monotonic() - self.started, self.log)


@dataclass
class Local:
    """Processes on this machine: JOBS at once, and of each slot as many as SLOTS say."""

    root: Path
    environment: Mapping[str, str]
    jobs: int = 1
    slots: Mapping[str, int] = field(default_factory=dict)
    command: Callable[[Step], list[str]] = lambda step: ours("stages", step.kind_name, step.name)
    _running: list[_Process] = field(default_factory=list)

    def free(self, step: Step) -> bool:
        """Whether a process and the step's slot are free."""
        same = sum(p.step.kind.slot == step.kind.slot for p in self._running)
        return len(self._running) < self.jobs and same < self.slots.get(step.kind.slot, self.jobs)

    def start(self, step: Step) -> None:
        """Start a process; it ends with this one, however that ends (see the runner)."""
        log = self._log(step)
        output = log.open("wb") if log else None
        environment = {**self.environment, PARENT: named()}
        try:
            process = subprocess.Popen(
                self.command(step), cwd=self.root, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        finally:
            if output:
                output.close()
        self._running.append(_Process(step, process, time.monotonic(), log))

    def _log(self, step: Step) -> Path | None:
        """Steps that run one at a time write to the terminal; side by side, each has a file of its own."""
        if self.jobs == 1:
            return None
        folder = self.root / TEMPORARY / "adapterbuild"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{step.name}.log"

    def wait(self) -> list[Finished]:
        """Wait until at least one step has ended; all that have."""
        while not (ended := [p for p in self._running if p.process.poll() is not None]):
            time.sleep(_POLL_SECONDS)
        self._running = [p for p in self._running if p not in ended]
        return [p.finished() for p in ended]

    def stop(self) -> list[Finished]:
        """Ask every process to end, and kill what has not after a while."""
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


def in_turn(root: Path, environment: Mapping[str, str]) -> Local:
    """One step at a time, in this terminal."""
    return Local(root, environment)


def side_by_side(root: Path, environment: Mapping[str, str], jobs: int, devices: int = 1) -> Local:
    """JOBS steps at once, of those that use a device only DEVICES."""
    return Local(root, environment, jobs, {"device": devices})


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
