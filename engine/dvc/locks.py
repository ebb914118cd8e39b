"""Locks of a workspace: the build lock, and DVC's lock on its files."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from engine.core.errors import UserError
from engine.dvc import dvcfile

_PATIENCE = 30.0
"""Seconds to wait for DVC's lock, which DVC holds while it loads, hashes and commits, but not while a step runs."""


@contextmanager
def build_lock(root: Path) -> Iterator[None]:
    """Hold the workspace's build lock; raises UserError with its holder if it is taken."""
    path = root / dvcfile.TEMPORARY / "adapterbuild.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not _try(file):
            file.seek(0)
            raise UserError(
                f"another build is running in {root}: {file.read().strip() or 'unknown process'}", hint="wait for it, or stop it with ^C"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
        file.flush()
        yield


@contextmanager
def dvc_lock(root: Path) -> Iterator[None]:
    """Hold DVC's repository lock (zc.lockfile: flock(2) on `.dvc/tmp/lock`); raises UserError after 30 seconds."""
    path = root / dvcfile.TEMPORARY / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + _PATIENCE
        while not _try(file):
            if time.monotonic() > deadline:
                raise UserError(f"another `dvc` command is running in {root}", hint="wait until it ends, then run this command again")
            time.sleep(0.05)
        yield


def _try(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
