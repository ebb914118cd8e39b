"""Where DVC keeps its cache: `cache.dir` of its configuration (DVC 3.67), or `.dvc/cache`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from engine import dvcfile
from engine.errors import Location, UserError


def cache_folder(root: Path) -> Path:
    """The cache of the workspace ROOT, as the nearest configuration file that says so has it; relative to that file's folder."""
    found = root / dvcfile.CACHE
    for path in _files(root):
        if given := _given(path):
            found = path.parent / Path(given).expanduser()
    return Path(os.path.normpath(found))


def _files(root: Path) -> Iterator[Path]:
    """Configuration files, each over those before it: of the system, the user, the workspace, and this clone of it."""
    yield Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR") or "/etc/xdg/dvc") / "config"
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dvc"
    yield Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR") or user) / "config"
    yield from (root / ".dvc" / "config", root / ".dvc" / "config.local")


def _given(path: Path) -> str | None:
    """The value of `cache.dir` in one file; raises UserError where that, or `cache.local`, leads to no folder."""
    text = path.read_text("utf-8") if path.is_file() else ""
    if "[cache]" not in text:
        return None
    import configparser  # not needed where nothing is said about the cache

    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UserError(f"DVC's configuration cannot be read: {error}", Location(str(path))) from None
    given = parser.get("cache", "dir", fallback=None)
    if parser.has_option("cache", "local") or (given and re.match(r"\w+://", given)):
        raise UserError("only a folder can be DVC's cache here", Location(str(path)), "set it with: dvc cache dir FOLDER")
    return given.strip("'\"") if given else None
