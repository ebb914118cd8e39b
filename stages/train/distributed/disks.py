"""Files of a training on several hosts: copies files of the first process to every host's disk, shared or not.

Hosts on which the step is started separately have copies of the workspace; hosts started from the first one share its workspace. Which
case applies is detected: the step marks the work folder that it creates.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from engine.core.errors import UserError

PIECE = 2**24
"""Bytes per message."""


@dataclass(frozen=True)
class Here:
    """A process's description of itself, exchanged at the start."""

    mark: str
    """Mark of the work folder: equal on hosts that share the disk."""
    work: str
    """Digest of step, recipe, inputs and resources."""
    host: str


class Disks:
    """Copies files of the first process to disks that lack them; every call is collective over all processes."""

    def __init__(self, here: Here, device: torch.device) -> None:
        all_of_them: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(all_of_them, here)
        first = all_of_them[0]
        if other := next((one for one in all_of_them if one.work != first.work), None):
            what = f"the hosts were started with different work: the step on {other.host} differs from that on {first.host}"
            hint = "check out the same commit in both workspaces, with the same [resources], and start the same step on each"
            raise UserError(what, hint=hint)
        rank, marks = distributed.get_rank(), [one.mark for one in all_of_them]
        self._first, self._device = rank == 0, device
        self.several = len(set(marks)) > 1
        self._writes = not self._first and marks.index(here.mark) == rank and marks[0] != here.mark

    def mirror(self, folder: Path) -> None:
        """Make FOLDER (flat, without hidden files) on every disk equal to that of the first process."""
        if not self.several:
            return
        names: list[Any] = [sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []]
        distributed.broadcast_object_list(names)
        if self._writes:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                if path.name not in names[0]:
                    path.unlink()
        for name in names[0]:
            self.bring(folder / name)

    def bring(self, path: Path) -> None:
        """Copy the first process's file to every disk on which it is missing or different."""
        if not self.several:
            return
        said: list[Any] = [(path.stat().st_size, _digest(path)) if self._first else None]
        distributed.broadcast_object_list(said)
        size, digest = said[0]
        lacks = self._writes and not (path.exists() and path.stat().st_size == size and _digest(path) == digest)
        wanted = torch.tensor(float(lacks), device=self._device)
        distributed.all_reduce(wanted)
        if wanted:
            self._send(path, size, lacks)

    def _send(self, path: Path, size: int, lacks: bool) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with path.open("rb") if self._first else temporary.open("wb") if lacks else Path(os.devnull).open("wb") as file:
            for start in range(0, size, PIECE):
                count = min(PIECE, size - start)
                content = bytearray(file.read(count)) if self._first else bytearray(count)
                piece = torch.frombuffer(content, dtype=torch.uint8).to(self._device)
                distributed.broadcast(piece, 0)
                if not self._first:
                    file.write(piece.cpu().numpy().tobytes())
            if lacks:
                file.flush()
                os.fsync(file.fileno())
        if lacks:
            temporary.replace(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
