"""What the newest checkpoint of a training says of its progress, read without its tensors, and without torch."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

DECIDES_NO_BYTES = True
"""Not part of a step's identity: what is told of a checkpoint does not affect results."""

CHECKPOINTS = "checkpoints"
"""Folder in the scratch folder for the training's state."""
_NAME = re.compile(r"step-\d{8}\.safetensors")


@dataclass(frozen=True)
class Saved:
    """A checkpoint: finished steps of all, the seconds that they took, and the loss of each."""

    step: int
    steps: int | None
    """None in checkpoints of older versions."""
    seconds: float
    """Wall time of the training until the checkpoint, in all attempts; 0 in checkpoints of older versions."""
    losses: tuple[float, ...]

    def __str__(self) -> str:
        return f"resumes at step {self.step:,}{f' of {self.steps:,}' if self.steps else ''}"


def saved(scratch: Path) -> Saved | None:
    """The newest readable checkpoint in SCRATCH, the folder of one recipe and its inputs; None if there is none.

    The file begins with the length of a JSON header, in whose metadata the progress is (github.com/huggingface/safetensors).
    """
    folder = scratch / CHECKPOINTS
    names = sorted((path.name for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True) if folder.is_dir() else []
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            progress = json.loads(header["__metadata__"]["state"])["progress"]
            losses = tuple(float(point[0]) for point in progress["curve"])
            return Saved(int(progress["step"]), progress.get("steps"), float(progress.get("seconds", 0.0)), losses)
        except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError):
            continue  # removed meanwhile, or damaged: the training resumes from the one before, too
    return None
