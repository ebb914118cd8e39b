"""Starts processes of this project with a safe path, so that files of a workspace cannot shadow modules."""

import sys
from pathlib import Path

DECIDES_NO_BYTES = True
"""Not part of a step's identity: how a process starts does not affect results."""

CODE = Path(__file__).resolve().parents[2]
"""The folder with `engine` and `stages`."""


def entry(code: Path = CODE) -> str:
    """The entry script of the code in the folder CODE."""
    return str(code / "engine" / "entry" / "__main__.py")


def ours(module: str, *arguments: str, code: Path = CODE) -> list[str]:
    """The command that runs MODULE of this project with this Python, like `python -m MODULE`."""
    return [sys.executable, "-P", entry(code), module, *arguments]
