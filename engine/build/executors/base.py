"""What an executor is: the build decides what runs, an executor runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from engine.core.graph import Step
from engine.dvc.dvcfile import Entry


@dataclass(frozen=True)
class Finished:
    """A step whose process has ended, with its exit status and the seconds it took."""

    step: Step
    status: int
    seconds: float
    log: Path | None = None
    elsewhere: str = ""
    """The machine that ran the step, whose outputs are in the cache; empty if they are in the workspace."""
    lost: bool = False
    """Whether it is not the step that failed, but the machines on which it was to run."""


class Executor(Protocol):
    """Starts steps and reports which have ended; it decides and records nothing."""

    def free(self, step: Step) -> bool:
        """Whether STEP could start now."""

    def start(self, step: Step, read: Mapping[str, Entry]) -> None:
        """Start STEP, for which a slot is free and whose dependencies, by path, are READ; now, or with others at `launch`."""

    def launch(self) -> None:
        """No further step can start before one ends: start those that were held back for others to join them."""

    def wait(self) -> list[Finished]:
        """Wait until at least one step has ended; returns all that have."""

    @property
    def keeps_going(self) -> bool:
        """Whether a failed step leaves those to run that do not depend on it."""

    @property
    def detaches(self) -> bool:
        """Whether the build ends, and leaves the running steps to go on, when no further step can start."""

    def stop(self) -> list[Finished]:
        """End all running steps, first with SIGTERM; returns all that have ended."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
