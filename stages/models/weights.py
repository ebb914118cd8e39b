"""The digest of the weights that a model in a folder, and an adapter on it, have."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def weights_digest(folders: Iterable[Path]) -> str:
    """sha256 (64 hex digits) of the names and the content of the safetensors files in FOLDERS, in this order."""
    whole = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        whole.update(b"\n")
    return whole.hexdigest()


def token_digest(path: Path) -> str:
    """sha256 (64 hex digits) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
