"""What an executor is: the build decides what runs, an executor runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from engine.core.graph import Step
from engine.dvc.dvcfile import Entry

if TYPE_CHECKING:
    from engine.plan.decide import Plan


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
    why: str = ""
    """Why it has failed, where its exit status and its log do not say that."""


class Executor(Protocol):
    """Starts steps and reports which have ended; it decides and records nothing."""

    def check(self, steps: Sequence[Step], plan: "Plan") -> None:
        """Raise UserError if one of STEPS, which may run according to PLAN, can never run; called before any of them starts."""

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

    def stop(self, asked: bool = True) -> list[Finished]:
        """End all running steps, first with SIGTERM; returns all that have ended.

        If nobody has ASKED for it, an error ends the build: steps that can go on without it do, and the next build takes them up.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
