"""Files of cache and workspace: written whole or not at all, linked as `cache.type` says, open to a group as `cache.shared` says."""

import errno
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.core.errors import UserError
from engine.dvc.config import Cache

_IMPOSSIBLE = {getattr(errno, name) for name in ("EXDEV", "EPERM", "EOPNOTSUPP", "EINVAL", "ENOTTY", "EMLINK", "ENOSYS", "EACCES")}
"""What a file system says that cannot do a sort of link."""


def place(source: Path, target: Path, links: Sequence[str]) -> None:
    """Put an object of the cache at TARGET, where nothing is, by the first of LINKS that the file systems can do, as `cache.type` means it.

    Raises UserError where none can be done.
    """
    for link in links:
        try:
            if link == "reflink":
                reflink(source, target)
            elif link == "hardlink":
                # DVC does not link empty files: all of them would be one file.
                target.touch() if source.stat().st_size == 0 else os.link(source, target)
            elif link == "symlink":
                target.symlink_to(source)
            else:
                shutil.copyfile(source, target)
            return
        except OSError as error:
            target.unlink(missing_ok=True)
            if error.errno not in _IMPOSSIBLE:
                raise
    raise UserError(f"{source} cannot be put at {target} by {' or '.join(links)}", hint="allow copies: dvc config cache.type reflink,copy")


_FICLONE = 0x40049409
"""ioctl(2) of Linux: the target shares the blocks of the source until one of them is written."""


def reflink(source: Path, target: Path) -> None:
    """Copy SOURCE without copying its blocks; raises OSError where the file system cannot."""
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, "no reflinks here")
    with source.open("rb") as old, target.open("wb") as new:
        fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())


def copy(source: Path, target: Path) -> None:
    """Copy SOURCE, without its blocks where the file system can."""
    try:
        reflink(source, target)
    except OSError:
        shutil.copyfile(source, target)


def is_link(file: Path, target: Path) -> bool:
    """Whether FILE is a link to the object TARGET; an empty file is as good as one."""
    return file.samefile(target) or target.stat().st_size == 0


def make_folder(folder: Path, cache: Cache) -> None:
    """Make a folder of the cache and those above it, with the permissions that `cache.shared` asks for."""
    if folder.is_dir():
        return
    make_folder(folder.parent, cache)
    folder.mkdir(exist_ok=True)
    if cache.shared:
        folder.chmod(cache.folder_mode)


def replace_with(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a whole file at once; a full disk leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_md5(path: Path) -> str:
    """The md5 of a file, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
