"""Slurm: each step is a batch job, or a task of an array of them (https://slurm.schedmd.com/sbatch.html, job_array.html)."""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from engine.build.executors.cluster import Full, JobEnd, Needs, Unreachable, checked
from engine.core.errors import UserError

_PASSING = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "slurm_load_jobs error: Unexpected",
    "Zero Bytes",
)
"""What Slurm's commands say while the controller is away."""
_FULL = re.compile(r"\w*Submit\w*Limit|job submit limit|temporarily unable to accept job|Resource temporarily unavailable")
"""What it says of a job that it would take if the user, or the cluster, had fewer."""
_OTHER_LIMIT = re.compile(r"\b(?!\w*Submit)(?:QOS|Assoc|Max|Grp)\w*Limit\b")
"""A limit of another kind, which it names before the same text."""
_ANSWER_SECONDS = 60.0
_OUTPUT_BYTES = 4000
_KEPT_SECONDS = 7 * 86400
"""After that, the output of a job is removed."""
_NO_NODE = "node configuration is not available"
"""What it says of a job that no node fits; for some seconds after its start, of any job that those which have reported do not fit."""


@dataclass(frozen=True)
class Slurm:
    """Jobs of `sbatch`. They are requeued by Slurm when their node fails or they are preempted."""

    options: Sequence[str] = ()
    """Options of sbatch for every job, such as `--partition=gpu`."""
    setup: str = ""
    """Lines of shell that run on the node first, such as `module load cuda`."""
    name: str = "slurm"
    _unsure: set[str] = field(default_factory=set)
    """Marks of jobs that Slurm may have taken although sbatch has not said so."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From `options` and `setup`; raises UserError without Slurm's commands."""
        given = checked(settings, "slurm", {"options": list, "setup": str})
        if shutil.which("sbatch") is None:
            raise UserError("sbatch not found", hint="run the build where Slurm's commands are, on a login node; --on local builds here")
        return cls(tuple(given.get("options", ())), given.get("setup", ""))

    def refusal(self, needs: Needs, nodes: int = 1) -> str | None:
        """What sbatch says against a job with NEEDS on each of NODES nodes."""
        try:
            self._run(["sbatch", "--test-only", *self._asked(needs, nodes), *self.options, "--wrap", "true"])
        except Full:
            return None
        except UserError as error:
            return error.problems[0].what
        return None

    def submit(self, label: str, command: Sequence[str], needs: Needs) -> str:
        """Queue a batch script that becomes COMMAND, so that Slurm's signals reach it."""
        return self._sbatch(label, f"exec {shlex.join(command)}", needs)

    def submit_many(self, jobs: Sequence[tuple[str, Sequence[str]]], needs: Needs) -> Sequence[str]:
        """Queue one array with a task for each job, as many as the cluster allows; their ids are `JOB_INDEX`."""
        if (most := min(len(jobs), self._largest_array)) < 2:
            label, command = jobs[0]
            return [self.submit(label, command, needs)]
        tasks = [f"{index}) exec {shlex.join(command)} ;; # {label}" for index, (label, command) in enumerate(jobs[:most])]
        lines = "\n".join(['case "$SLURM_ARRAY_TASK_ID" in', *tasks, "esac"])
        number = self._sbatch(f"{jobs[0][0]}+{most - 1}", lines, needs, f"--array=0-{most - 1}")
        return [f"{number}_{index}" for index in range(most)]

    def submit_on(self, label: str, command: Sequence[str], needs: Needs, nodes: int) -> str:
        """Queue one allocation, in which `srun` starts COMMAND on each node."""
        # The batch script runs on the first node, so srun's address is that node's. Allocations that share it need ports of their own.
        variables = {
            "MASTER_ADDR": "${MASTER_ADDR:-$SLURM_LAUNCH_NODE_IPADDR}",
            "MASTER_PORT": "${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}",
            "NODE_RANK": "$SLURM_NODEID",
        }
        task = "; ".join([*(f'export {name}="{value}"' for name, value in variables.items()), f"exec {shlex.join(command)}"])
        step = ["srun", "--kill-on-bad-exit=1", *self._asked(needs, nodes), "sh", "-c", task]
        # `--signal=B:` reaches only this script, and srun would answer SIGTERM by killing the step. A job that is being cancelled, whose
        # step has its SIGTERM already, takes no further signal.
        lines = [
            """trap 'scancel --quiet --signal=TERM "$SLURM_JOB_ID"' TERM""",
            f"{shlex.join(step)} &",
            "step=$!",
            'wait "$step"',
            "status=$?",
            'while kill -0 "$step" 2>/dev/null; do wait "$step"; status=$?; done',
            'exit "$status"',
        ]
        return self._sbatch(label, "\n".join(lines), needs, nodes=nodes)

    @cached_property
    def _largest_array(self) -> int:
        """Tasks that an array may have; 0 where the cluster has no arrays."""
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", self._run(["scontrol", "show", "config"]), re.MULTILINE)
        return int(found[1]) if found else 0

    def _sbatch(self, label: str, lines: str, needs: Needs, *more: str, nodes: int = 1) -> str:
        # The worker sends the log to the store. What keeps it from doing so is written where nodes share this machine's home folder; Slurm
        # itself would not start a job whose output has no place.
        options = ["--parsable", "--requeue", f"--job-name={label}", "--output=/dev/null", *more, *self._asked(needs, nodes), *self.options]
        folder, name = shlex.quote(str(self._outputs)), "$SLURM_JOB_ID.out"
        output = f'[ -d {folder} ] && [ -w {folder} ] && exec >{folder}/"{name}" 2>&1'
        script = f"#!/bin/sh\n{output}\n{self.setup}\n{lines}\n"
        # Each attempt at a job has a script of its own.
        mark = f"adapterbuild:{hashlib.sha256(script.encode()).hexdigest()[:16]}"
        if mark in self._unsure:
            told = self._run(["squeue", "--me", "--states=all", "--noheader", "--format=%F|%k"]).splitlines()
            if found := next((line.split("|")[0].strip() for line in told if mark in line), None):
                return found
        try:
            number = self._run(["sbatch", *options, f"--comment={' '.join([*self._comment, mark])}"], script)
        except Unreachable:
            self._unsure.add(mark)
            raise
        return number.strip().partition(";")[0]

    @property
    def _comment(self) -> list[str]:
        """The comment that the options give every job, of which sbatch takes the last."""
        following = zip(self.options, self.options[1:], strict=False)
        given = [value for name, value in following if name == "--comment"]
        return [*given, *(option.removeprefix("--comment=") for option in self.options if option.startswith("--comment="))][-1:]

    @cached_property
    def _outputs(self) -> Path:
        """The folder for what jobs write, without that of old ones."""
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "adapterbuild" / "slurm"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("*.out"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                        path.unlink()
        return folder

    @staticmethod
    def _asked(needs: Needs, nodes: int = 1) -> list[str]:
        found = [f"--cpus-per-task={needs.cores}", f"--ntasks={nodes}"]
        found += [f"--nodes={nodes}", *(["--ntasks-per-node=1"] if nodes > 1 else [])]
        found += [f"--gpus{'-per-node' if nodes > 1 else ''}={needs.devices}"] if needs.devices else []
        found += [f"--mem={-(-needs.memory // 2**20)}M"] if needs.memory else []
        return found + ([f"--time={needs.minutes}"] if needs.minutes else [])

    def states(self, ids: Iterable[str]) -> Mapping[str, str]:
        """From squeue, which clusters without accounting have too."""
        wanted = set(ids)
        if not wanted:
            return {}
        # squeue fails for an id that it no longer knows, so all of the user's are listed, and each task of an array that waits.
        found = {}
        for line in self._run(["squeue", "--me", "--array", "--noheader", "--format=%i|%T|%N"]).splitlines():
            number, state, node = line.strip().split("|")
            if number in wanted and state not in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY"):
                found[number] = f"running on {node}" if state == "RUNNING" else "queued" if state == "PENDING" else state.lower()
        return found

    def explain(self, id: str) -> JobEnd | None:
        """From scontrol, which knows jobs for some minutes after their end (MinJobAge), and from what the job has written."""
        try:
            text = self._run(["scontrol", "show", "job", "--oneliner", id])
        except UserError:
            return None
        told = dict(re.findall(r"(\w+)=(\S*)", text.partition("\n")[0]))
        status, _, number = told.get("ExitCode", "0:0").partition(":")
        state, node = told.get("JobState", ""), told.get("BatchHost")
        if state in ("", "PENDING", "RUNNING", "COMPLETING"):
            return None
        ended = state in ("FAILED", "COMPLETED")
        why = (f"exit code {status}" if number in ("", "0") else f"signal {number}") if ended else state
        why += f" on {node}" if node else ""
        said = ""
        with contextlib.suppress(OSError), (self._outputs / f"{told.get('JobId', id)}.out").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _OUTPUT_BYTES))
            said = file.read().decode(errors="replace")
        return JobEnd(why, int(status) if ended else None, said)

    def cancel(self, ids: Iterable[str]) -> None:
        """By scancel: SIGTERM to the batch script and its processes, SIGKILL after the cluster's KillWait."""
        # scancel fails for a job that is gone, and a job that waits takes no signal.
        if left := self.states(ids):
            self._run(["scancel", "--quiet", *left])

    def close(self) -> None:
        """Nothing is held."""

    def _run(self, command: Sequence[str], given: str = "") -> str:
        try:
            done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{command[0]} does not answer for {_ANSWER_SECONDS:g} s") from None
        if done.returncode == 0:
            return done.stdout
        said = " ".join(done.stderr.split()) or f"{command[0]} ended with exit code {done.returncode}"
        if any(text in said for text in _PASSING):
            raise Unreachable(said)
        if _FULL.search(said) and not _OTHER_LIMIT.search(said):
            raise Full(said)
        if _NO_NODE in said and "unknown" in self._run(["sinfo", "--noheader", "--format=%T"]):
            raise Unreachable(f"the controller has not heard from every node yet, and says: {said}")
        raise UserError(said)
