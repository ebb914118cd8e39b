"""A workspace (the folder with specs, `dvc.yaml` and artifacts), and the location of the running code."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError, did_you_mean

CODE_ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages `engine` and `stages`."""

DEFAULT_SPECS = ("specs/*.toml",)
SETTINGS = "pyproject.toml"
"""The file that holds a workspace's settings, in the table `[tool.adapterbuild]`."""


@dataclass(frozen=True)
class Workspace:
    """A folder of specs with one DAG."""

    root: Path

    @classmethod
    def at(cls, folder: Path) -> "Workspace":
        """The workspace at FOLDER; raises UserError if it is not one."""
        root = folder.resolve()
        if folder == Path() and not (root / "specs").is_dir():
            # Like git, find the workspace from a folder inside it.
            root = workspace_above(root) or root
        if not root.is_dir():
            raise UserError(f"folder not found: {folder}", hint="pass another --workspace DIR, or create one: engine init DIR")
        if (root / "stages" / "kinds.py").exists() and root != CODE_ROOT:
            raise UserError(
                f"workspace {folder} contains its own `engine` and `stages`, but the code that is running is {CODE_ROOT}",
                hint="run `python -m engine` in that folder",
            )
        return cls(root)

    @property
    def holds_code(self) -> bool:
        """Whether the running code is inside the workspace, so that DVC can track it."""
        return self.root == CODE_ROOT

    @cached_property
    def patterns(self) -> tuple[str, ...]:
        """Glob patterns of the specs: `[tool.adapterbuild] specs` in the workspace's pyproject.toml; the default is `specs/*.toml`."""
        patterns = settings_of(self.root).get("specs", list(DEFAULT_SPECS))
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            hint = 'for example: specs = ["specs/*.toml"]'
            raise UserError("[tool.adapterbuild] specs must be a list of patterns", Location(SETTINGS), hint)
        return tuple(patterns)

    def spec_paths(self) -> tuple[Path, ...]:
        """All specs of the workspace, sorted by path; raises UserError if there are none."""
        matching = sorted({path for pattern in self.patterns for path in self.root.glob(pattern)})
        for path in matching:
            # Some editors lock a file with a hidden dangling link.
            if path.is_symlink() and not path.exists() and not path.name.startswith("."):
                what = f"broken link: {self.display(path)} -> {path.readlink()}"
                raise UserError(what, Location(self.display(path)), "fix the link, or remove it")
        found = [path for path in matching if path.is_file()]
        if not found:
            raise UserError(
                f"no spec matches {', '.join(self.patterns)} in {self.root}", hint="create a workspace with a first spec: engine init DIR"
            )
        return tuple(found)

    def display(self, path: Path) -> str:
        """PATH as shown in messages: relative to the workspace if it is inside."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def settings_of(root: Path) -> dict[str, Any]:
    """The table `[tool.adapterbuild]` in the pyproject.toml of the workspace ROOT; raises UserError if that file cannot be read."""
    path = root / SETTINGS
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("adapterbuild", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {SETTINGS}: {error}", Location(SETTINGS)) from None
    return found


def workspace_above(folder: Path) -> Path | None:
    """The nearest folder above FOLDER that is a workspace: with a DVC repository and specs; None if there is none.

    As git and DVC do, it looks no higher than the root of the git repository that FOLDER is in.
    """
    inside = folder.resolve()
    while not (inside / ".git").exists() and inside != inside.parent:
        inside = inside.parent
        if (inside / ".dvc").is_dir() and (inside / "specs").is_dir():
            return inside
    return None


def select(paths: Iterable[Path], workspace: Workspace, others: Iterable[str] = ()) -> tuple[Path, ...]:
    """The workspace's specs at PATHS, which the user named; raises UserError for any other file. OTHERS are further names for the hint."""
    chosen, known = [], workspace.spec_paths()
    meant = {path.resolve(): path for path in known}  # a spec may be a link, and be named by its target
    for path in paths:
        full = path if path.is_absolute() else Path.cwd() / path
        full = full if full.exists() else workspace.root / path
        if not full.exists():
            names = [*(workspace.display(p) for p in known), *others]
            raise UserError(f"no such spec, experiment or step: {path}", hint=did_you_mean(str(path), names))
        if full.resolve() not in meant:
            raise UserError(
                f"{path} is not one of this workspace's specs ({', '.join(workspace.patterns)})",
                hint="pass its workspace with --workspace DIR, or add it to [tool.adapterbuild] specs in pyproject.toml",
            )
        chosen.append(meant[full.resolve()])
    return tuple(chosen)
