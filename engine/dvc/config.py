"""DVC's cache as its configuration describes it (DVC 3.67): where it lies, how its files reach the workspace, who may write."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import Location, UserError
from engine.dvc import dvcfile

if TYPE_CHECKING:
    from configparser import RawConfigParser

_UMASK = os.umask(0)
os.umask(_UMASK)


LINKS = ("reflink", "hardlink", "symlink", "copy")
"""How DVC may put an object of its cache into the workspace."""


@dataclass(frozen=True)
class Cache:
    """The settings of DVC's cache that decide how its files are written."""

    folder: Path
    links: tuple[str, ...] = ("reflink", "copy")
    """`cache.type`: what to try, the first that the file system can do."""
    shared: bool = False
    """`cache.shared = group`: every member of the group may write."""

    @property
    def folder_mode(self) -> int:
        """Permissions of new folders; a shared one hands its group on."""
        return 0o2775 if self.shared else 0o777 & ~_UMASK

    @property
    def file_mode(self) -> int:
        """Permissions of new files that are no objects."""
        return 0o664 if self.shared else 0o666 & ~_UMASK


def cache_folder(root: Path) -> Path:
    """The cache of the workspace ROOT, as the nearest configuration file that says so has it; relative to that file's folder."""
    return cache_settings(root).folder


def cache_settings(root: Path) -> Cache:
    """`cache.dir`, `cache.type` and `cache.shared`, each as the nearest configuration file that sets it says.

    Raises UserError for a cache that is no folder, an unknown type of link, and another value of `cache.shared` than group.
    """
    found, links, shared = root / dvcfile.CACHE, Cache.links, False
    for path in _files(root):
        given = _given(path)
        if "dir" in given:
            found = path.parent / Path(given["dir"]).expanduser()
        if "type" in given:
            links = tuple(link.strip() for link in given["type"].split(","))
            if wrong := [link for link in links if link not in LINKS]:
                what = f"cache.type must be of {', '.join(LINKS)}, got '{wrong[0]}'"
                raise UserError(what, Location(str(path)), "run: dvc config cache.type reflink,copy")
        if "shared" in given:
            if given["shared"] != "group":
                what = f"cache.shared must be group, got '{given['shared']}'"
                raise UserError(what, Location(str(path)), "run: dvc config cache.shared group")
            shared = True
    return Cache(Path(os.path.normpath(found)), links, shared)


def _files(root: Path) -> Iterator[Path]:
    """Configuration files, each over those before it: of the system, the user, the workspace, and this clone of it."""
    yield Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR") or "/etc/xdg/dvc") / "config"
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dvc"
    yield Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR") or user) / "config"
    yield from (root / ".dvc" / "config", root / ".dvc" / "config.local")


def remote_folder(root: Path) -> Path | None:
    """The default remote of DVC where that is a folder that can be looked into without a network; None for all others."""
    default, urls = None, {}
    for path in _files(root):
        parser = _parsed(path, "remote")
        if parser is None:
            continue
        default = parser.get("core", "remote", fallback=default)
        for section in parser.sections():
            name = section.strip("'").removeprefix("remote ").strip('"')
            if section.strip("'").startswith("remote ") and (url := parser.get(section, "url", fallback=None)):
                plain = re.match(r"\w+://", url) is None and not {"version_aware", "worktree"} & set(parser.options(section))
                urls[name] = path.parent / Path(url).expanduser() if plain else None
    found = urls.get(default.strip("'\"")) if default else None
    return Path(os.path.normpath(found)) if found and found.is_dir() else None


def _given(path: Path) -> dict[str, str]:
    """The settings of the cache in one file; raises UserError where `cache.dir`, or `cache.local`, leads to no folder."""
    parser = _parsed(path, "[cache]")
    if parser is None:
        return {}
    given = {name: value.strip("'\"") for name, value in parser.items("cache") if value}
    if "local" in given or re.match(r"\w+://", given.get("dir", "")):
        raise UserError("only a folder can be DVC's cache here", Location(str(path)), "set it with: dvc cache dir FOLDER")
    return given


def _parsed(path: Path, word: str) -> "RawConfigParser | None":
    """A configuration file that holds WORD; None for others, which is most of them."""
    text = path.read_text("utf-8") if path.is_file() else ""
    if word not in text:
        return None
    import configparser  # not needed where nothing is said about cache and remotes

    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UserError(f"DVC's configuration cannot be read: {error}", Location(str(path))) from None
    return parser


def check_repository(root: Path) -> None:
    """Raise UserError where DVC has no repository at ROOT."""
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root} is not a DVC repository", hint=f"run: engine init {root}")
