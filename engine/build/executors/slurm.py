"""Slurm: each step is a batch job (https://slurm.schedmd.com/sbatch.html)."""

import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from engine.build.executors.cluster import Needs, Unreachable, checked
from engine.core.errors import UserError

_PASSING = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "slurm_load_jobs error: Unexpected",
    "Zero Bytes",
)
"""What Slurm's commands say while the controller is away."""


@dataclass(frozen=True)
class Slurm:
    """Jobs of `sbatch`. They are requeued by Slurm when their node fails or they are preempted."""

    options: Sequence[str] = ()
    """Options of sbatch for every job, such as `--partition=gpu`."""
    setup: str = ""
    """Lines of shell that run on the node first, such as `module load cuda`."""
    name: str = "slurm"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From `options` and `setup`; raises UserError without Slurm's commands."""
        given = checked(settings, "slurm", {"options": list, "setup": str})
        if shutil.which("sbatch") is None:
            raise UserError("sbatch not found", hint="run the build where Slurm's commands are, on a login node; --on local builds here")
        return cls(tuple(given.get("options", ())), given.get("setup", ""))

    def refusal(self, needs: Needs) -> str | None:
        """What sbatch says against a job with NEEDS."""
        try:
            self._run(["sbatch", "--test-only", *self._asked(needs), *self.options, "--wrap", "true"])
        except UserError as error:
            return error.problems[0].what
        return None

    def submit(self, label: str, command: Sequence[str], needs: Needs) -> str:
        """Queue a batch script that becomes COMMAND, so that Slurm's signals reach it."""
        script = f"#!/bin/sh\n{self.setup}\nexec {shlex.join(command)}\n"
        # The worker sends the log to the store; one on the node would stay there.
        options = ["--parsable", "--requeue", f"--job-name={label}", "--output=/dev/null", *self._asked(needs), *self.options]
        return self._run(["sbatch", *options], script).strip().partition(";")[0]

    @staticmethod
    def _asked(needs: Needs) -> list[str]:
        found = [f"--cpus-per-task={needs.cores}", "--ntasks=1"]
        found += [f"--gpus={needs.devices}"] if needs.devices else []
        found += [f"--mem={-(-needs.memory // 2**20)}M"] if needs.memory else []
        return found + ([f"--time={needs.minutes}"] if needs.minutes else [])

    def states(self, ids: Iterable[str]) -> Mapping[str, str]:
        """From squeue, which clusters without accounting have too."""
        wanted = set(ids)
        if not wanted:
            return {}
        # squeue fails for an id that it no longer knows, so all of the user's are listed.
        found = {}
        for line in self._run(["squeue", "--me", "--noheader", "--format=%i|%T|%N"]).splitlines():
            number, state, node = line.strip().split("|")
            if number in wanted and state not in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY"):
                found[number] = f"running on {node}" if state == "RUNNING" else "queued" if state == "PENDING" else state.lower()
        return found

    def cancel(self, ids: Iterable[str]) -> None:
        """By scancel: SIGTERM to the batch script and its processes, SIGKILL after the cluster's KillWait."""
        # scancel fails for a job that is gone, and a job that waits takes no signal.
        if left := self.states(ids):
            self._run(["scancel", "--quiet", *left])

    def close(self) -> None:
        """Nothing is held."""

    @staticmethod
    def _run(command: Sequence[str], given: str = "") -> str:
        try:
            done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{command[0]} does not answer for 60 s") from None
        if done.returncode == 0:
            return done.stdout
        said = " ".join(done.stderr.split()) or f"{command[0]} ended with exit code {done.returncode}"
        if any(text in said for text in _PASSING):
            raise Unreachable(said)
        raise UserError(said)
