"""DVC's configuration (DVC 3.67): the settings of its cache, and its default remote."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import Location, UserError
from engine.dvc import dvcfile
from engine.dvc.writing import Cache

if TYPE_CHECKING:
    from configparser import RawConfigParser

LINKS = ("reflink", "hardlink", "symlink", "copy")
"""The ways in which DVC can check out an object from its cache."""


def cache_folder(root: Path) -> Path:
    """The cache folder of the workspace ROOT (see `cache_settings`)."""
    return cache_settings(root).folder


def cache_settings(root: Path) -> Cache:
    """`cache.dir`, `cache.type` and `cache.shared`, each from the most specific configuration file that sets it.

    A relative `cache.dir` is relative to the configuration file. Raises UserError if the cache is not a folder, for an unknown link type,
    and for a `cache.shared` other than `group`.
    """
    found, links, shared = root / dvcfile.CACHE, Cache.links, False
    for path in _files(root):
        given = _given(path)
        if "dir" in given:
            found = path.parent / Path(given["dir"]).expanduser()
        if "type" in given:
            links = tuple(link.strip() for link in given["type"].split(","))
            if wrong := [link for link in links if link not in LINKS]:
                what = f"cache.type must be a list of {', '.join(LINKS)}, got '{wrong[0]}'"
                raise UserError(what, Location(str(path)), "run: dvc config cache.type reflink,copy")
        if "shared" in given:
            if given["shared"] != "group":
                what = f"cache.shared must be 'group', got '{given['shared']}'"
                raise UserError(what, Location(str(path)), "run: dvc config cache.shared group")
            shared = True
    return Cache(Path(os.path.normpath(found)), links, shared)


def _files(root: Path) -> Iterator[Path]:
    """Configuration files in order of increasing precedence: system, user, workspace, local."""
    yield Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR") or "/etc/xdg/dvc") / "config"
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dvc"
    yield Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR") or user) / "config"
    yield from (root / ".dvc" / "config", root / ".dvc" / "config.local")


def default_remote(root: Path) -> dict[str, str]:
    """The settings of DVC's default remote, `url` among them, that of a folder as an absolute path; empty if there is none."""
    default: str | None = None
    remotes: dict[str, dict[str, str]] = {}
    for path in _files(root):
        parser = _parsed(path, "remote")
        if parser is None:
            continue
        default = parser.get("core", "remote", fallback=default)
        for section in parser.sections():
            name = section.strip("'").removeprefix("remote ").strip('"')
            if section.strip("'").startswith("remote "):
                found = {key: value.strip("'\"") for key, value in parser.items(section) if value}
                if "url" in found and re.match(r"\w+://", found["url"]) is None:
                    found["url"] = os.path.normpath(path.parent / Path(found["url"]).expanduser())
                remotes[name] = remotes.get(name, {}) | found
    return remotes.get(default.strip("'\""), {}) if default else {}


def remote_folder(root: Path) -> Path | None:
    """DVC's default remote, if it is a local folder without `version_aware` or `worktree`; else None."""
    settings = default_remote(root)
    url = settings.get("url", "://")
    plain = "://" not in url and not {"version_aware", "worktree"} & settings.keys()
    return Path(url) if plain and Path(url).is_dir() else None


def _given(path: Path) -> dict[str, str]:
    """The section `[cache]` of one file; raises UserError if `cache.dir` or `cache.local` refers to something other than a folder."""
    parser = _parsed(path, "[cache]")
    if parser is None:
        return {}
    given = {name: value.strip("'\"") for name, value in parser.items("cache") if value}
    if "local" in given or re.match(r"\w+://", given.get("dir", "")):
        raise UserError("DVC's cache must be a local folder", Location(str(path)), "set it with: dvc cache dir FOLDER")
    return given


def _parsed(path: Path, word: str) -> "RawConfigParser | None":
    """The parsed configuration file PATH if it contains WORD, else None: most files need no parsing."""
    text = path.read_text("utf-8") if path.is_file() else ""
    if word not in text:
        return None
    import configparser  # not needed without settings of cache or remotes

    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UserError(f"cannot read DVC's configuration: {error}", Location(str(path))) from None
    return parser


def check_repository(root: Path) -> None:
    """Raise UserError where DVC has no repository at ROOT."""
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root} is not a DVC repository", hint=f"run: engine init {root}")
