"""Checks the setup of a workspace without loading a spec: git, DVC, the merge driver, `dvc.lock` and the cache."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from engine.dvc import conflicts, dvcfile, git
from engine.dvc.config import cache_settings
from engine.identity.environment import LOCKS

COLUMNS = ("check", "passed", "detail")
TESTED_DVC = "3.67"
"""The minor version of DVC whose files and caches `engine.dvc.dvcfile` and `engine.dvc.recording` write."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    holds: bool
    detail: str


def examine(root: Path) -> list[Finding]:
    """Run every check on the workspace at ROOT; raises UserError if there is no such folder."""
    if not root.is_dir():
        hint = "give an existing folder (--workspace DIR), or create a workspace: engine init DIR"
        raise UserError(f"folder not found: {root}", hint=hint)
    return list(_findings(root))


def _findings(root: Path) -> Iterator[Finding]:
    repository = git.has_repository(root)
    yield Finding("git repository", repository, "found" if repository else "not found: run git init")
    inside = (root / ".dvc").is_dir()
    yield Finding("DVC repository", inside, ".dvc" if inside else f"not found: run engine init {root}")
    yield _version()
    yield _lock(root)
    if repository:
        lacking = conflicts.attributed(root)
        detail = (
            f"no merge={conflicts.DRIVER} for {', '.join(lacking)}: run engine init" if lacking else ".gitattributes names the merge driver"
        )
        yield Finding("git attributes", not lacking, detail)
        yield _driver(root)
    for name in conflicts.FILES:
        yield _readable(root, name)
    if inside:
        yield from _cache(root)


def _version() -> Finding:
    try:
        found = version("dvc")
    except PackageNotFoundError:
        return Finding("DVC version", False, "DVC is not installed")
    return Finding("DVC version", found.startswith(f"{TESTED_DVC}."), f"{found}; tested with {TESTED_DVC}")


def _lock(root: Path) -> Finding:
    found = [name for name in LOCKS if (root / name).exists()]
    return Finding(
        "lock of versions", True, " and ".join(found) or "none: other installed versions would rerun steps; to write one, run engine lock"
    )


def _driver(root: Path) -> Finding:
    command = conflicts.installed_driver(root)
    if command is None:
        return Finding("merge driver", False, "not in this clone's .git/config: run engine compile")
    python = next(iter(shlex.split(command)), "")
    there = conflicts.runs(command)
    return Finding("merge driver", there, python if there else f"{command.partition(' %O')[0]} not found: run engine compile")


def _readable(root: Path, name: str) -> Finding:
    path = root / name
    if not path.exists():
        return Finding(name, True, "not written yet")
    data = path.read_bytes()
    if conflicts.has_markers(data):
        return Finding(name, False, "has merge conflicts: run engine compile, which takes the records of both sides")
    try:
        content = dvcfile.parse_lock(data) if name == dvcfile.LOCK else dvcfile.parse_yaml(data) or {}
    except ValueError as error:
        return Finding(name, False, f"cannot be read: {error}".splitlines()[0])
    entries: Any = content.get("stages", {}) if name == dvcfile.PIPELINE else content
    return Finding(name, True, f"{len(entries)} entries")


def _cache(root: Path) -> Iterator[Finding]:
    try:
        cache = cache_settings(root)
    except UserError as error:
        yield Finding("cache", False, error.problems[0].what)
        return
    there = next(folder for folder in (cache.folder, *cache.folder.parents) if folder.exists())
    writable = os.access(there, os.W_OK)
    shared = ", shared with the group" if cache.shared else ""
    yield Finding("cache", writable, f"{cache.folder} ({', '.join(cache.links)}{shared})" + ("" if writable else ": not writable"))
