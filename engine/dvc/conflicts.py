"""Merges the generated files step by step: as git's merge driver, and for files in which git left conflict markers.

Such a merge never conflicts: each step's section is taken whole from one side. If both sides changed a step, ours is taken (the merged
specs may require neither), and the run of the other side is put into the run cache, where a plan finds it.
"""

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError
from engine.dvc import dvcfile
from engine.dvc.config import cache_settings
from engine.dvc.dvcfile import Record
from engine.dvc.writing import make_folder, replace_with
from stages.process.starting import ours

FILES = (dvcfile.LOCK, dvcfile.PIPELINE, dvcfile.PARAMS)
DRIVER = "adapterbuild"
ATTRIBUTES = tuple(f"{name} merge={DRIVER}" for name in (*FILES, "metrics/*.json", "metrics/experiments/*.json", "plots/*.csv"))
_OPEN, _BASE, _MIDDLE, _CLOSE = b"<<<<<<<", b"|||||||", b"=======", b">>>>>>>"


@dataclass(frozen=True)
class Merged:
    """The text of a merged file, and the steps that both sides changed."""

    text: bytes
    both: tuple[str, ...] = ()
    """The steps that both sides changed differently; ours was taken."""
    others: Mapping[str, Record] = field(default_factory=dict)
    """For `dvc.lock`: the other side's runs of those steps."""


def has_markers(data: bytes) -> bool:
    """Whether a file contains git's conflict markers."""
    lines = data.splitlines()
    return any(line.startswith(_OPEN + b" ") for line in lines) and any(line.startswith(_CLOSE) for line in lines)


def sides(data: bytes) -> tuple[bytes, bytes]:
    """Our text and theirs, from a file with conflict markers; raises ValueError if a conflict is not closed."""
    ours: list[bytes] = []
    theirs: list[bytes] = []
    now: list[bytes] | None = None
    for line in data.splitlines(keepends=True):
        if line.startswith(_OPEN + b" ") and now is None:
            now = ours
        elif line.startswith(_BASE) and now is ours:
            now = []
        elif line.rstrip() == _MIDDLE and now is not None and now is not theirs:
            now = theirs
        elif line.startswith(_CLOSE) and now is theirs:
            now = None
        elif now is None:
            ours.append(line)
            theirs.append(line)
        else:
            now.append(line)
    if now is not None:
        raise ValueError("a conflict marker is not closed")
    return b"".join(ours), b"".join(theirs)


def merge(name: str, base: bytes | None, ours: bytes, theirs: bytes) -> Merged:
    """Merge one generated file; BASE is the common ancestor, None if unknown. Raises ValueError if a text is not a YAML mapping."""
    if name == dvcfile.LOCK:
        return _merged_lock(base, ours, theirs)
    old, our, their = (_table(name, text) for text in (base or b"", ours, theirs))
    if name == dvcfile.PIPELINE:
        before, ours_now, theirs_now = (dict(table.get("stages") or {}) for table in (old, our, their))
        stages, both = _chosen(before, ours_now, theirs_now, base is not None)
        rest = {key: value for key, value in (their | our).items() if key != "stages"}
        return Merged(dvcfile.generated_text(rest | {"stages": _in_order(stages)}), both)
    values, both = _chosen(old, our, their, base is not None)
    return Merged(dvcfile.generated_text(_in_order(values)), both)


def _in_order(sections: Mapping[str, Any]) -> dict[str, Any]:
    """In the order of `engine compile`: `resolve` first, then by name."""
    return {name: sections[name] for name in sorted(sections, key=lambda name: (name != dvcfile.RESOLVE, name))}


def _merged_lock(base: bytes | None, ours: bytes, theirs: bytes) -> Merged:
    old, our, their = (dict(_table(dvcfile.LOCK, text).get("stages") or {}) for text in (base or b"", ours, theirs))
    chosen, both = _chosen(old, our, their, base is not None)
    others = dvcfile.parse_lock(theirs)
    lock = dvcfile.LockText(ours)
    lock.put(chosen)
    return Merged(lock.text(), both, {name: others[name] for name in both if name in others})


def _chosen(old: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any], known: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Each section from the side that changed it, and the names of the sections that both sides changed differently."""
    found, both = {}, []
    for name in {**ours, **theirs}:
        our, their, before = (side.get(name) for side in (ours, theirs, old))
        if our == their or (known and their == before):
            pick = our
        elif known and our == before:
            pick = their
        elif our is None or their is None:
            # One side changed what the other removed, or the base is unknown: an extra section is harmless.
            pick = our or their
        else:
            pick = our
            both.append(name)
        if pick is not None:
            found[name] = pick
    return found, tuple(sorted(both))


def _table(name: str, text: bytes) -> dict[str, Any]:
    content = dvcfile.parse_yaml(text) or {}
    if not isinstance(content, dict):
        raise ValueError(f"{name} is not a YAML mapping")
    return content


def mended(root: Path, name: str) -> Merged | None:
    """The merge of both sides of a generated file with conflict markers; None if it has none.

    Raises UserError if a marker is not closed or a side is not valid YAML.
    """
    path = root / name
    data = path.read_bytes() if path.is_file() else b""
    if not has_markers(data):
        return None
    try:
        ours, theirs = sides(data)
        return merge(name, None, ours, theirs)
    except ValueError as error:
        what = f"cannot resolve the merge conflicts in {name}: {error}"
        raise UserError(what, Location(name), f"use one side: git checkout --ours {name}") from None


def mend(root: Path) -> list[str]:
    """Resolve the conflict markers in all generated files; returns one sentence per file that was written."""
    sentences = []
    for name in FILES:
        if found := mended(root, name):
            keep(root, name, found)
            replace_with(root / name, found.text)
            sentences.append(sentence(name, found))
    return sentences


def sentence(name: str, found: Merged) -> str:
    """A message about the resolved conflicts of a file."""
    taken = f"; both sides changed {', '.join(found.both)}: ours was kept, theirs is in the run cache" if found.others else ""
    return f"resolved merge conflicts in {name}, keeping the records of both sides{taken} (next: git add {name})"


def keep(root: Path, name: str, found: Merged) -> None:
    """Record that a merged file was generated (not edited manually), and put the other side's runs into the run cache."""
    if not (root / ".dvc").is_dir():
        return
    if name == dvcfile.LOCK:
        cache = cache_settings(root)
        for record in found.others.values():
            if record.dependencies and record.outputs:
                folder = cache.folder / dvcfile.run_folder(dvcfile.run_key(record.command, record.dependencies, record.outputs))
                make_folder(folder, cache)
                replace_with(folder / dvcfile.run_value(record), dvcfile.run_text(record).encode(), cache.file_mode)
    else:
        replace_with(root / dvcfile.WRITTEN / name, dvcfile.bytes_md5(found.text).encode())


def driver_command(code: Path) -> str:
    """The command that git runs for `merge=adapterbuild`; it falls back to git's own line-based merge if this Python no longer exists."""
    start = shlex.join(ours("engine", "merge-file", code=code))
    return f"{start} %O %A %B %P || git merge-file %A %O %B"


def install_driver(root: Path, code: Path) -> bool:
    """Install the merge driver in this clone; returns whether it was newly installed."""
    command = driver_command(code)
    present = installed_driver(root)
    in_git = any((folder / ".git").exists() for folder in (root, *root.parents))
    if not in_git or attributed(root) or (present and runs(present)):
        return False
    for key, value in (("name", "generated files of adapterbuild, step by step"), ("driver", command)):
        subprocess.run(["git", "config", "--local", f"merge.{DRIVER}.{key}", value], cwd=root, capture_output=True, check=False)
    return installed_driver(root) == command


def runs(command: str) -> bool:
    """Whether the Python and the script in a driver's command still exist."""
    python, _, script, *_ = [*shlex.split(command), "", "", ""]
    return Path(python).is_file() and Path(script).is_file()


def installed_driver(root: Path) -> str | None:
    """The command of the merge driver in this clone; None if it is not installed."""
    done = subprocess.run(["git", "config", "--get", f"merge.{DRIVER}.driver"], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def attributed(root: Path) -> list[str]:
    """The generated files without the merge driver in git's attributes."""
    done = subprocess.run(["git", "check-attr", "merge", "--", *FILES], cwd=root, capture_output=True, text=True, check=False)
    return [name for name in FILES if f"{name}: merge: {DRIVER}" not in done.stdout.splitlines()]


def merge_file(base: Path, ours: Path, theirs: Path, name: str) -> None:
    """The merge driver: merge into OURS; NAME is the file's path in the repository, and git runs this at the top of the work tree.

    Raises ValueError if one of the three files cannot be parsed.
    """
    place = Path(name)
    if place.name not in FILES:
        return  # metrics and plots go with the record in dvc.lock, of which ours is kept
    old = base.read_bytes()
    found = merge(place.name, old or None, ours.read_bytes(), theirs.read_bytes())
    keep(place.parent.resolve(), place.name, found)
    ours.write_bytes(found.text)
