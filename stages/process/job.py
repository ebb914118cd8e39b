"""What the runner hands to a body: parameters are passed beside it, inputs are paths, outputs are fresh folders and files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREEMPTED = 75
"""The exit code of a step that was asked to stop and has saved what it had: EX_TEMPFAIL of sysexits(3), try again later."""


class Preempted(Exception):
    """The step was asked to stop, and has saved what it had; the same command goes on from there."""


Metrics = dict[str, Any]
"""Small JSON values that git keeps: counts and numbers, nested by name."""


@dataclass(frozen=True)
class Job:
    """One run of a step; a body reads `inputs`, writes into `output`, and returns its metrics."""

    name: str
    inputs: Mapping[str, Path]
    """Role to path, such as `model` or `tokens/extract`."""
    output: Path
    """An empty folder; it becomes the artifact when the body returns."""
    plot: Path | None
    """The CSV file that a kind with plots writes."""
    scratch: Path
    """A folder of this very recipe and these very inputs that outlives a killed run: checkpoints go here."""
    live: Path | None = None
    """A folder for what people watch while the step runs: it is no output, and git and DVC know nothing of it."""

    def files(self, role: str) -> tuple[Path, ...]:
        """The inputs of ROLE: the one of that very name, or those of `ROLE/0`, `ROLE/1` and so on; none where there are none."""
        if role in self.inputs:
            return (self.inputs[role],)
        numbered = self.group(role)
        return tuple(numbered[key] for key in sorted(numbered, key=int))

    def group(self, role: str) -> dict[str, Path]:
        """The inputs `ROLE/...` by the rest of their name."""
        return {key.split("/", 1)[1]: path for key, path in self.inputs.items() if key.startswith(f"{role}/")}
