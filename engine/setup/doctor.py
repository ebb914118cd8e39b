"""Checks this machine and the setup of a workspace, without loading a spec or importing torch."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.build.machine import devices_here, has_gpu
from engine.core.errors import UserError
from engine.dvc import conflicts, dvcfile, git
from engine.dvc.config import cache_settings, default_remote
from engine.dvc.remote import Remote, Unreadable
from engine.identity.environment import LOCKS, Environment, find, way_out
from engine.setup.versions import relevant_packages
from stages.process import numerics

COLUMNS = ("check", "passed", "detail")
TESTED_DVC = "3.67"
"""The minor version of DVC whose files and caches `engine.dvc.dvcfile` and `engine.dvc.recording` write."""
OLDEST = (3, 11)
"""The oldest version of Python that has what this program uses."""
ROOM = 2**30
"""Bytes of free disk space below which a build is likely to fail."""


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
    recent = sys.version_info >= OLDEST
    oldest = ".".join(map(str, OLDEST))
    way = "" if recent else f": install Python {oldest} or newer, and adapterbuild with it"
    yield Finding("Python", recent, f"{platform.python_version()} ({sys.executable}){way}")
    yield _torch()
    obstacle = numerics.obstacle()
    lacks = f"{obstacle}: results are identical on machines of this type, and equal up to rounding on others"
    yield Finding(
        "portable numerics", True, lacks if obstacle else "AVX2: the same recipe gives the same bytes as on other processors of this maker"
    )
    yield from _packages(root)
    if shutil.which("git") is None:
        yield Finding("git", False, "not found on PATH: install git")
        return
    repository = git.has_repository(root)
    yield Finding("git repository", repository, "found" if repository else f"not found: run engine init {root}")
    yield _author(root)
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
        yield _remote(root)


def _version() -> Finding:
    try:
        found = version("dvc")
    except PackageNotFoundError:
        return Finding("DVC version", False, f"not installed: {_INSTALL_DVC}")
    tested = found.startswith(f"{TESTED_DVC}.")
    return Finding("DVC version", tested, f"{found}; tested with {TESTED_DVC}" + ("" if tested else f": {_INSTALL_DVC}"))


_INSTALL_DVC = f'run pip install "dvc=={TESTED_DVC}.*"'


def _torch() -> Finding:
    found = find("torch")
    if found is None:
        return Finding("torch", True, 'not installed: this machine plans, and builds no models; to build: pip install "adapterbuild"')
    count = devices_here()
    devices = f"{count or 'some'} {'GPU' if has_gpu() else 'CPU core'}{'' if count == 1 else 's'}"
    return Finding("torch", True, f"{found}, {devices}")


def _packages(root: Path) -> Iterator[Finding]:
    """Whether the installed versions of packages that affect results are those of the lock; nothing without a lock."""
    locked = Environment(root)
    wanted = {name: locked.version(name) for name in relevant_packages() if locked.lists(name)}
    differing = {name: version for name, version in wanted.items() if find(name) not in (None, version)}
    if wanted:
        shown = ", ".join(f"{name} {find(name)} (locked: {version})" for name, version in list(differing.items())[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        detail = f"{shown}{more}: {way_out(root, differing)}" if differing else f"as locked: {len(wanted)} packages that affect results"
        yield Finding("installed versions", not differing, detail)


def _author(root: Path) -> Finding:
    """Whether git knows who commits; a build records commits but makes none."""
    command = ["git", "-C", str(root), "var", "GIT_AUTHOR_IDENT"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Finding("git identity", True, done.stdout.rpartition(">")[0] + ">")
    hint = 'unknown, so that `git commit` fails: run git config --global user.name "…" and git config --global user.email "…"'
    return Finding("git identity", False, hint)


def _remote(root: Path) -> Finding:
    """Whether DVC's default remote answers within the timeout of remotes."""
    url = re.sub(r"//[^@/]*@", "//", default_remote(root).get("url", ""))
    if not url:
        return Finding("DVC remote", True, "none: results stay on this machine; to share them: dvc remote add --default NAME URL")
    try:
        with Remote(root) as remote:
            remote.texts(["doctor"])
    except (Unreadable, UserError) as error:
        way = "see whether address, network and credentials are right: dvc remote list, dvc remote modify"
        return Finding("DVC remote", False, f"{url} cannot be read: {str(error).splitlines()[0]}; {way}")
    return Finding("DVC remote", True, f"{url} answers")


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
        entries = len(dvcfile.parse_lock(data)) if name == dvcfile.LOCK else len(_sections(dvcfile.parse_stages(data)))
    except ValueError as error:
        way = dvcfile.RESTORE_LOCK if name == dvcfile.LOCK else "write it again: engine compile"
        return Finding(name, False, f"cannot be read: {str(error).splitlines()[0]}; {way}")
    return Finding(name, True, f"{entries} entries")


def _sections(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The steps in the CONTENT of `dvc.yaml`, or of `params.yaml`, which has no more than these."""
    found: Mapping[str, Any] = content.get("stages", content)
    return found


def _cache(root: Path) -> Iterator[Finding]:
    try:
        cache = cache_settings(root)
    except UserError as error:
        problem = error.problems[0]
        yield Finding("cache", False, "; ".join(filter(None, (problem.what, problem.hint))))
        return
    there = next(folder for folder in (cache.folder, *cache.folder.parents) if folder.exists())
    writable = os.access(there, os.W_OK)
    shared = ", shared with the group" if cache.shared else ""
    way = "" if writable else f": not writable; give yourself the right to write {there}, or choose another: dvc cache dir --local FOLDER"
    yield Finding("cache", writable, f"{cache.folder} ({', '.join(cache.links)}{shared}){way}")
    free = shutil.disk_usage(there).free
    hint = "" if free >= ROOM else ": free disk space, for example with engine gc"
    yield Finding("disk space of the cache", free >= ROOM, f"{free / 1e9:,.1f} GB free{hint}")
