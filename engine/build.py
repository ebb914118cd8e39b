"""Builds: compile, then let DVC run what the plan says."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import UserError
from engine.project import Project


def check_repository(root: Path) -> None:
    """Raise UserError where DVC has no repository at ROOT."""
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root} is no DVC repository", hint=f"run: engine init {root}")


def dvc_environment() -> dict[str, str]:
    """The environment in which DVC's stages find this very Python, whether or not its virtual environment is active."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([folder, os.environ.get("PATH", "")]), "DVC_NO_ANALYTICS": "1"}


def build(project: Project, targets: Sequence[str]) -> int:
    """Compile and run `dvc repro TARGETS` (all steps when none is given); gives DVC's exit code."""
    check_repository(project.root)
    project.write_compiled()
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    process = subprocess.Popen(command, cwd=project.root, env=dvc_environment())
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The terminal has sent ^C to DVC and to the step as well: they end by themselves.
        process.wait()
        raise
