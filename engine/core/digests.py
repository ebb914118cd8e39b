"""One text for one value, and digests of it: the leaf on which identities stand; it imports no model of a spec."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any


def canonical(value: Any) -> str:
    """One text for one value: keys sorted, `1`, `1.0`, `true` and `"1"` kept apart, NaN refused with ValueError."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def digest(data: bytes | str) -> str:
    """`sha256:<hex>` of DATA."""
    return "sha256:" + hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def short(text: str) -> str:
    """A digest as people see it: its first 12 hex digits."""
    return text.removeprefix("sha256:")[:12]


def scratch_name(step: str, identity: str, read: Mapping[str, str]) -> str:
    """Where the runner keeps checkpoints of a step that reads this (path to md5): one folder for each state of what it reads."""
    return f"{step}-{short(digest(identity + json.dumps(dict(read), sort_keys=True)))}"


def folder_digest(folder: Path) -> str:
    """Content address of an artifact: a digest over the names and bytes of all its files."""
    return listing_digest(file_digests(folder))


def listing_digest(files: Mapping[str, str]) -> str:
    """Content address of an artifact whose files have these digests, by their paths inside it."""
    return digest("".join(f"{files[name]}  {name}\n" for name in sorted(files, key=PurePosixPath)))


def file_digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file of an artifact, in hex, by its path inside it."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
