"""How a process of ours is started: with a safe path, so that no file of a workspace is taken for a module."""

import sys
from pathlib import Path

DECIDES_NO_BYTES = True
"""What starts a process is no part of its identity."""

CODE = Path(__file__).resolve().parents[2]
"""The folder that holds `engine` and `stages`."""


def entry(code: Path = CODE) -> str:
    """The script that runs modules of the code in the folder CODE."""
    return str(code / "engine" / "entry" / "__main__.py")


def ours(module: str, *arguments: str, code: Path = CODE) -> list[str]:
    """The command that runs MODULE, one of ours, with this Python, as `python -m MODULE` would."""
    return [sys.executable, "-P", entry(code), module, *arguments]
