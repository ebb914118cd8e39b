"""Canonical JSON and digests, from which identities are built; imports no spec model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any


def canonical(value: Any) -> str:
    """Canonical JSON of VALUE: keys sorted; `1`, `1.0`, `true` and `"1"` stay distinct. Raises ValueError on NaN and infinities."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def digest(data: bytes | str) -> str:
    """`sha256:<hex>` of DATA."""
    return "sha256:" + hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def short(text: str) -> str:
    """The first 12 hex digits of a digest, as shown to users."""
    return text.removeprefix("sha256:")[:12]


def scratch_name(step: str, identity: str, read: Mapping[str, str]) -> str:
    """Name of the folder for the checkpoints of a step that has IDENTITY and reads READ (path to md5): one per state of its inputs."""
    return f"{step}-{short(digest(identity + json.dumps(dict(read), sort_keys=True)))}"


def folder_digest(folder: Path) -> str:
    """Content address of an artifact: a digest over the names and bytes of all its files."""
    return listing_digest(file_digests(folder))


def listing_digest(files: Mapping[str, str]) -> str:
    """Content address of an artifact, from the sha256 (hex) of each file by its path inside the artifact."""
    return digest("".join(f"{files[name]}  {name}\n" for name in sorted(files, key=PurePosixPath)))


def file_digests(folder: Path) -> dict[str, str]:
    """The sha256 (hex) of each file of an artifact by its path inside the artifact."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
