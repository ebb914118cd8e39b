"""Creates a workspace: a DVC repository inside git, ignore files, and a first spec."""

import subprocess
import sys
from importlib import resources
from pathlib import Path

from engine.build.driver import dvc_environment
from engine.core.errors import UserError
from engine.core.workspace import CODE_ROOT
from engine.dvc.conflicts import ATTRIBUTES, install_driver
from engine.identity.environment import LOCK
from engine.setup.versions import first_lock

GITIGNORE = ("/artifacts/", "/report/", "/.adapterbuild/", "__pycache__/")
DVCIGNORE = ("__pycache__", "*.pyc", "/tests/")


def init(folder: Path) -> list[str]:
    """Make FOLDER a workspace and return the names of new files; existing files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    inside = subprocess.run(["git", "rev-parse", "--is-inside-work-tree"], cwd=folder, capture_output=True, check=False)
    if inside.returncode:
        _run(folder, "git", "init", "--quiet")
    if not (folder / ".dvc").is_dir():
        top = (folder / ".git").exists()
        _run(folder, sys.executable, "-P", "-m", "dvc", "init", "--quiet", *([] if top else ["--subdir"]))
        _run(folder, sys.executable, "-P", "-m", "dvc", "config", "core.analytics", "false")
    _extend(folder / ".gitignore", GITIGNORE)
    _extend(folder / ".dvcignore", DVCIGNORE)
    _extend(folder / ".gitattributes", ATTRIBUTES)
    install_driver(folder, CODE_ROOT)
    locked = first_lock(folder)
    made = [LOCK] if locked and locked.versions else []
    if not any(folder.glob("specs/*.toml")):
        spec = folder / "specs" / "first.toml"
        spec.parent.mkdir(exist_ok=True)
        spec.write_text(resources.files("engine.setup").joinpath("first.toml").read_text("utf-8"), "utf-8")
        made.append("specs/first.toml")
    return made


def _extend(path: Path, wanted: tuple[str, ...]) -> None:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    missing = [line for line in wanted if line not in lines]
    if missing:
        path.write_text("\n".join([*lines, *missing]) + "\n", "utf-8")


def _run(folder: Path, *command: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, env=dvc_environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed", hint="install git") from None
    if done.returncode:
        raise UserError(f"`{' '.join(command[-3:])}` failed in {folder}: {done.stderr.strip() or done.stdout.strip()}")
