"""Creates a workspace: a DVC repository inside git, ignore files, and a first spec."""

import subprocess
import sys
from importlib import resources
from pathlib import Path

from engine.build.driver import dvc_environment
from engine.core.errors import UserError, did_you_mean
from engine.core.workspace import CODE_ROOT, workspace_above
from engine.dvc.conflicts import ATTRIBUTES, install_driver
from engine.identity.environment import LOCK, REQUIREMENTS
from engine.setup.versions import first_lock

GITIGNORE = ("/artifacts/", "/report/", "/dvc_plots/", "/.adapterbuild/", "__pycache__/")
DVCIGNORE = ("__pycache__", "*.pyc")


CI_FILES = {"github": ".github/workflows/adapterbuild.yml", "gitlab": ".gitlab-ci.yml"}
"""Where a code host looks for the file that says what it checks."""


def init(folder: Path, ci: str | None = None, data: Path | None = None) -> tuple[list[str], str | None, str | None]:
    """Make FOLDER a workspace and keep existing files.

    Returns the names of new files and, if DATA is given, the name of its task and how its rows are read.

    DATA: the first spec is for these rows; raises UserError as `spec_for` does, and if there are specs already.
    CI: also write the checks of pull requests for `github` or `gitlab`; raises UserError for another name, and if there is such a file.
    """
    if ci is not None:
        if ci not in CI_FILES:
            raise UserError(f"--ci must be github or gitlab, got '{ci}'", hint=did_you_mean(ci, CI_FILES))
        if (folder / CI_FILES[ci]).exists():
            hint = f"move it away, or add the commands that `engine init --ci {ci}` writes in an empty folder"
            raise UserError(f"{CI_FILES[ci]} exists already", hint=hint)
    text = resources.files("engine.setup").joinpath("first.toml").read_text("utf-8")
    task = told = None
    if data is not None:
        from engine.setup.first_spec import spec_for

        if specs := sorted(path.name for path in folder.glob("specs/*.toml")):
            raise UserError(f"--data writes a first spec, but there are specs already: {', '.join(specs)}", hint="leave --data out")
        if not data.is_file():
            raise UserError(f"file not found: {data}")
        inner = data.resolve().is_relative_to(folder.resolve())
        text, task, told = spec_for(data, data.resolve().relative_to(folder.resolve()).as_posix() if inner else str(data.resolve()))
    above = workspace_above(folder)
    if above is not None and not (folder / ".dvc").is_dir():
        raise UserError(f"{folder} is inside the workspace {above}", hint="run engine there, or choose a folder outside of it")
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
        spec.write_text(text, "utf-8")
        made.append("specs/first.toml")
    if ci is not None:
        checks = folder / CI_FILES[ci]
        checks.parent.mkdir(parents=True, exist_ok=True)
        text = resources.files("engine.setup").joinpath(f"{ci}.yml").read_text("utf-8")
        checks.write_text(text if (folder / LOCK).exists() else text.replace(LOCK, REQUIREMENTS), "utf-8")
        made.append(CI_FILES[ci])
    return made, task, told


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
