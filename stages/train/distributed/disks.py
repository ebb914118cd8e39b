"""Files of a training on several hosts: what the first process has written comes to every disk, whether hosts share one or not.

Hosts on which somebody starts the step each have a copy of the workspace; those that are started from the first one see its workspace.
Which it is, is found: the folder in which a process finds its work was marked by the step that started it.
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
"""Bytes that are sent at once."""


@dataclass(frozen=True)
class Here:
    """What a process says of itself when all have met."""

    mark: str
    """Of the folder in which it found its work: equal where that is one folder on one disk."""
    work: str
    """Digest of step, recipe, inputs and resources."""
    host: str


class Disks:
    """Brings files of the first process to the disks that lack them; every process of a training takes part in each call."""

    def __init__(self, here: Here, device: torch.device) -> None:
        all_of_them: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(all_of_them, here)
        first = all_of_them[0]
        if other := next((one for one in all_of_them if one.work != first.work), None):
            what = f"the hosts were started for different work: what {other.host} is to train is not what {first.host} is"
            hint = "bring both workspaces to one commit, with the same [resources], and start the same step on each"
            raise UserError(what, hint=hint)
        rank, marks = distributed.get_rank(), [one.mark for one in all_of_them]
        self._first, self._device = rank == 0, device
        self.several = len(set(marks)) > 1
        self._writes = not self._first and marks.index(here.mark) == rank and marks[0] != here.mark

    def mirror(self, folder: Path) -> None:
        """Make FOLDER, flat and without files that are hidden, on every disk what it is on the first one."""
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
        """Bring the first process's file to every disk that lacks it, or has another one in its place."""
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
