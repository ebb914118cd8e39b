"""Temporary folders of workers: removed by whoever made them, and those of killed workers by the next one on the machine."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "adapterbuild-job-"
_LOCK = "lock"


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A new empty folder below the system's folder for temporary files."""
    _remove_abandoned()
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with (made / _LOCK).open("w") as file:
            # The system unlocks it when this process ends, however it ends.
            if not _locked(file.fileno()):
                continue
            try:
                folder = made / "folder"
                folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(made, ignore_errors=True)
            return


def _remove_abandoned() -> None:
    """Remove the folders of this user's workers that were killed on this machine."""
    for found in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if found.is_symlink() or found.stat().st_uid != os.getuid():
                continue
            with (found / _LOCK).open("r+") as file:
                if _locked(file.fileno()):
                    shutil.rmtree(found, ignore_errors=True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
