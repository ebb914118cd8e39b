"""What a cluster is to a build: a scheduler that runs a command somewhere and says what became of it.

An executor of another package is a class with these methods whose entry point in the group `adapterbuild.executors` has its name; it is
called with the table `[tool.adapterbuild.executor]` of the workspace.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from engine.core.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Needs:
    """What a step needs of a node."""

    cores: int = 1
    devices: int = 0
    """Number of GPUs."""
    memory: int = 0
    """Bytes of main memory; 0: the scheduler's default."""
    minutes: int = 0
    """Longest wall time; 0: the scheduler's default."""


class Unreachable(Exception):
    """The scheduler does not answer now, which may pass; the text says why."""


class Full(Exception):
    """The scheduler takes no further job of this user until one ends; the text says why."""


@dataclass(frozen=True)
class JobEnd:
    """What a scheduler knows of a job that has ended."""

    why: str
    """As it is shown, such as `exit code 127` or `OUT_OF_MEMORY`."""
    status: int | None = None
    """The exit status of its command, where that has ended by itself."""
    said: str = ""
    """The end of what its command has written, as far as it is to be had."""


class Cluster(Protocol):
    """A scheduler. Every method may raise Unreachable."""

    @property
    def name(self) -> str:
        """As it is shown, such as `slurm`."""

    def refusal(self, needs: Needs) -> str | None:
        """Why no node can ever meet NEEDS, such as `no node has 8 GPUs`; None if one can, or if that is not known."""

    def submit(self, label: str, command: Sequence[str], needs: Needs) -> str:
        """Queue COMMAND, which LABEL names for people; returns the scheduler's id of the job.

        Raises UserError if it refuses the job, and Full if it would take the job later.
        """

    def states(self, ids: Iterable[str]) -> Mapping[str, str]:
        """What each of IDS does now, such as `queued` or `running on node3`; those that have ended, or are not known, are left out."""

    def cancel(self, ids: Iterable[str]) -> None:
        """End jobs: SIGTERM first, so that a training saves its state."""

    def close(self) -> None:
        """Let go of the scheduler; jobs stay as they are."""


@runtime_checkable
class Arrays(Protocol):
    """What a cluster may have besides: one submission for many jobs."""

    def submit_many(self, jobs: Sequence[tuple[str, Sequence[str]]], needs: Needs) -> Sequence[str]:
        """Queue JOBS, each a label and a command as `submit` takes them, which all have NEEDS.

        Returns the ids of the first of them, in order: of as many as one submission takes, at least one. `states` and `cancel` know each.
        """


@runtime_checkable
class Explains(Protocol):
    """What a cluster may have besides: why a job has ended without a result."""

    def explain(self, id: str) -> JobEnd | None:
        """How the job ID, which `states` leaves out, has ended; None if that is not known, or not known any more."""


@runtime_checkable
class EndsWithBuild(Protocol):
    """What a cluster may be besides: one whose jobs end with the process that has submitted them."""

    ends_with_build: bool
    """True."""


@runtime_checkable
class Allocations(Protocol):
    """What a cluster may have besides: jobs on several nodes at once."""

    def refusal(self, needs: Needs, nodes: int = 1) -> str | None:
        """As `Cluster.refusal`, for NODES nodes, each with NEEDS."""

    def submit_on(self, label: str, command: Sequence[str], needs: Needs, nodes: int) -> str:
        """Queue COMMAND as `submit` does, to be run once on each of NODES nodes, each with NEEDS.

        There, MASTER_ADDR is the address of the first of them and NODE_RANK counts them from 0; where the command fails on one, it ends on
        all.
        """


def checked(settings: Mapping[str, Any], executor: str, known: Mapping[str, type]) -> dict[str, Any]:
    """SETTINGS of an executor, each of the type in KNOWN; raises UserError for others."""
    for key, value in settings.items():
        where = f"[tool.adapterbuild.executor] {key}"
        if key not in known:
            raise UserError(f"{where} is not a setting of the executor {executor}", hint=did_you_mean(key, list(known)))
        if not isinstance(value, known[key]):
            raise UserError(f"{where} must be of type {known[key].__name__}, got {value!r}")
    return dict(settings)
