"""Checkpoints: the whole state of a training in one safetensors file, written atomically.

A file `step-<number>.safetensors` contains the trained weights (`weights/<name>`), the optimizer's states (`states/<name>/<key>`), and
the rest as JSON in its metadata. It is written to a temporary file, synced and renamed; the previous one is kept too. There is no random
state: everything drawn in a step follows from the seed and the step, so that any number of processes can resume.
"""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from engine.core.errors import UserError
from stages.train.distributed.processes import State
from stages.train.memory.checkpoint_room import KEPT, checkpoint_bytes

_NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True)
class Validated:
    """Validation loss after STEP steps, overall and by task, in nats per supervised token, or of the objective on pairs."""

    step: int
    loss: float
    tasks: dict[str, float]
    measures: dict[str, dict[str, float]] = field(default_factory=dict)
    """What the objective measures, by task; empty for supervised training."""


@dataclass
class Progress:
    """Progress of a training: its state except tensors."""

    step: int = 0
    """Finished optimizer steps."""
    position: int = 0
    """Rows of the mixture's order consumed so far."""
    curve: list[list[float]] = field(default_factory=list)
    """Loss, learning rate and norm of the gradient of each step, and what the objective measures."""
    validations: list[Validated] = field(default_factory=list)
    micro_rows: int | None = None
    """Micro-batch size, in rows, found to fit into memory."""
    steps: int | None = None
    """Steps of the whole training; None in checkpoints of older versions."""
    seconds: float = 0.0
    """Wall time until the checkpoint, in all attempts; 0 in checkpoints of older versions."""


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a training resumes."""

    progress: Progress
    weights: dict[str, torch.Tensor]
    states: State


class Checkpoints:
    """The checkpoints of one training, in a folder specific to its recipe and inputs."""

    def __init__(self, folder: Path, of: str) -> None:
        self.folder, self._of = folder, of
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, progress: Progress, weights: dict[str, torch.Tensor], states: State) -> None:
        """Write a checkpoint, then delete all but the last two."""
        tensors = {f"weights/{name}": weight for name, weight in weights.items()}
        numbers: dict[str, dict[str, Any]] = {}
        for name, state in states.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"states/{name}/{key}"] = value
                else:
                    numbers.setdefault(name, {})[key] = value
        state_text = json.dumps({"of": self._of, "progress": asdict(progress), "numbers": numbers}, allow_nan=False)
        write_whole(self.folder / f"step-{progress.step:08}.safetensors", tensors, {"state": state_text})
        for _, path in self._files()[KEPT:]:
            path.unlink(missing_ok=True)

    def latest(self) -> Checkpoint | None:
        """The latest readable checkpoint, None if there is none; raises UserError for one of another recipe."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)  # left by a killed process
        for _, path in self._files():
            try:
                return self._read(path)
            except SafetensorError:
                # Possible only if the disk lost synced data; the previous checkpoint serves as well.
                continue
        return None

    def keep_best(self, weights: dict[str, torch.Tensor]) -> None:
        """Store WEIGHTS as the best so far."""
        write_whole(self.folder / "best.safetensors", weights, {"of": self._of})

    def best(self) -> dict[str, torch.Tensor]:
        """The stored best weights."""
        with safe_open(self.folder / "best.safetensors", "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping

    def _files(self) -> list[tuple[int, Path]]:
        """The checkpoints by step, latest first."""
        found = [(int(match[1]), path) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))]
        return sorted(found, reverse=True)

    def _read(self, path: Path) -> Checkpoint:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            if state["of"] != self._of:
                hint = f"remove {self.folder}, which is only for checkpoints of this step"
                raise UserError(f"{path} is a checkpoint of another recipe ({state['of']}, not {self._of})", hint=hint)
            weights: dict[str, torch.Tensor] = {}
            states: State = {name: dict(values) for name, values in state["numbers"].items()}
            for name in file.keys():  # noqa: SIM118 - no mapping
                sort, _, rest = name.partition("/")
                if sort == "weights":
                    weights[rest] = file.get_tensor(name)
                else:
                    weight, _, key = rest.rpartition("/")
                    states.setdefault(weight, {})[key] = file.get_tensor(name)
        progress = Progress(**state["progress"])
        progress.validations = [Validated(**validation) for validation in state["progress"]["validations"]]
        return Checkpoint(progress, weights, states)


def write_whole(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically: complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(tensors, temporary, metadata)
    _force(temporary)
    temporary.replace(path)
    _force(path.parent)


def _force(path: Path) -> None:
    """Sync a file or a folder's entries to disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_no_space(folder: Path, trained_bytes: int) -> None:
    """Raise UserError if the disk has no room for the checkpoints of TRAINED_BYTES of weights."""
    needed = checkpoint_bytes(trained_bytes)
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"checkpoints need {needed / 1e9:.1f} GB, but the disk of {folder} has only {free / 1e9:.1f} GB free"
        raise UserError(what, hint="free disk space (engine gc), or train fewer weights")
