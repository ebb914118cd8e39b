"""Writes files of the cache and the workspace: atomically, with links and permissions according to the cache's settings."""

import errno
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import UserError

_UMASK = os.umask(0)
os.umask(_UMASK)
_PART_BYTES = 2**20
"""What is read at once of a file that is copied or hashed."""


@dataclass(frozen=True)
class Cache:
    """The settings of DVC's cache that determine where and how files are written."""

    folder: Path
    links: tuple[str, ...] = ("reflink", "copy")
    """`cache.type`: link types in order of preference; the first that the file system supports is used."""
    shared: bool = False
    """`cache.shared = group`: all members of the group may write."""

    @property
    def folder_mode(self) -> int:
        """Permissions of new folders; in a shared cache, files in them inherit the group."""
        return 0o2775 if self.shared else 0o777 & ~_UMASK

    @property
    def file_mode(self) -> int:
        """Permissions of new files other than objects."""
        return 0o664 if self.shared else 0o666 & ~_UMASK


_IMPOSSIBLE = {getattr(errno, name) for name in ("EXDEV", "EPERM", "EOPNOTSUPP", "EINVAL", "ENOTTY", "EMLINK", "ENOSYS", "EACCES")}
"""The errors of file systems that do not support a type of link."""


def place(source: Path, target: Path, links: Sequence[str]) -> None:
    """Check out an object of the cache to TARGET, which must not exist, with the first type in LINKS that works (see `cache.type`).

    Raises UserError if none works.
    """
    for link in links:
        try:
            if link == "reflink":
                reflink(source, target)
            elif link == "hardlink":
                # As in DVC, empty files are not linked: all of them would be one file.
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
    what = f"cannot check out {source} to {target}: the file system does not support {' or '.join(links)}"
    raise UserError(what, hint="allow copies: dvc config cache.type reflink,copy")


_FICLONE = 0x40049409
"""Linux ioctl_ficlone(2): the target shares the blocks of the source until either is modified."""


def reflink(source: Path, target: Path) -> None:
    """Copy SOURCE by sharing its blocks; raises OSError if the file system does not support it."""
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, "reflinks are supported on Linux only")
    with source.open("rb") as old, target.open("wb") as new:
        fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())


def copy(source: Path, target: Path, going_on: Callable[[], None] | None = None) -> None:
    """Copy SOURCE, as a reflink if the file system supports it; GOING_ON is called after each part."""
    try:
        reflink(source, target)
    except OSError:
        if going_on is None:
            shutil.copyfile(source, target)
            return
        with source.open("rb") as old, target.open("wb") as new:
            while part := old.read(_PART_BYTES):
                new.write(part)
                going_on()


def is_link(file: Path, target: Path) -> bool:
    """Whether FILE is a link to the object TARGET; True for an empty object, which is never linked."""
    return file.samefile(target) or target.stat().st_size == 0


def make_folder(folder: Path, cache: Cache) -> None:
    """Create a folder of the cache and its parents, with the permissions of `cache.shared`."""
    if folder.is_dir():
        return
    make_folder(folder.parent, cache)
    folder.mkdir(exist_ok=True)
    if cache.shared:
        folder.chmod(cache.folder_mode)


def aside(path: Path) -> Path:
    """A name in PATH's folder for what becomes PATH once it is whole; no other process, on whichever machine, has the same."""
    return path.with_name(f".{path.name[:200]}.{os.urandom(6).hex()}")


def replace_with(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a file atomically; if the disk is full, the old file remains."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside(path)
    try:
        temporary.write_bytes(data)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_md5(path: Path, going_on: Callable[[], None] = lambda: None) -> str:
    """The md5 of a file, computed without cached hashes; GOING_ON is called after each part."""
    found, part = hashlib.md5(usedforsecurity=False), memoryview(bytearray(_PART_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(part):
            found.update(part[:size])
            going_on()
    return found.hexdigest()
