"""The runner's interface to a body: input paths, fresh output folders and files; parameters are passed separately."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREEMPTED = 75
"""Exit code of a preempted step that has saved its state: EX_TEMPFAIL of sysexits(3), try again later."""


class Preempted(Exception):
    """The step was asked to stop and has saved its state; the same command resumes it."""


Metrics = dict[str, Any]
"""Small JSON values tracked by git: counts and numbers, nested by name."""


@dataclass(frozen=True)
class Job:
    """One run of a step; a body reads `inputs`, writes into `output`, and returns its metrics."""

    name: str
    inputs: Mapping[str, Path]
    """Paths by role, such as `model` or `tokens/extract`."""
    output: Path
    """An empty folder that becomes the artifact when the body returns."""
    plot: Path | None
    """The CSV file for kinds with plots."""
    scratch: Path
    """A folder specific to this recipe and these inputs that survives a killed run, for checkpoints."""
    live: Path | None = None
    """A folder for live metrics; not an output, and untracked by git and DVC."""

    def files(self, role: str) -> tuple[Path, ...]:
        """The inputs of ROLE: the one with exactly this role, or `ROLE/0`, `ROLE/1`, ...; empty if there are none."""
        if role in self.inputs:
            return (self.inputs[role],)
        numbered = self.group(role)
        return tuple(numbered[key] for key in sorted(numbered, key=int))

    def group(self, role: str) -> dict[str, Path]:
        """The inputs `ROLE/...` by the rest of their role."""
        return {key.split("/", 1)[1]: path for key, path in self.inputs.items() if key.startswith(f"{role}/")}
