"""A workspace: the folder with specs, `dvc.yaml` and artifacts, and where the code that runs in it lies."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.core.errors import Location, UserError, did_you_mean

CODE_ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages `engine` and `stages`."""

DEFAULT_SPECS = ("specs/*.toml",)


@dataclass(frozen=True)
class Workspace:
    """One folder of specs with a DAG of its own."""

    root: Path

    @classmethod
    def at(cls, folder: Path) -> "Workspace":
        """The workspace FOLDER; raises UserError where that is none."""
        root = folder.resolve()
        if folder == Path() and not (root / "specs").is_dir():
            # As git does: from a folder inside the workspace.
            root = next((above for above in root.parents if (above / ".dvc").is_dir() and (above / "specs").is_dir()), root)
        if not root.is_dir():
            raise UserError(f"there is no folder {folder}", hint="give another --workspace DIR, or make one with: engine init DIR")
        if (root / "stages" / "kinds.py").exists() and root != CODE_ROOT:
            raise UserError(
                f"the workspace {folder} holds its own `engine` and `stages`, but those of {CODE_ROOT} are running",
                hint="run `python -m engine` in that folder",
            )
        return cls(root)

    @property
    def holds_code(self) -> bool:
        """Whether the code lies in the workspace, so that DVC can watch it."""
        return self.root == CODE_ROOT

    @cached_property
    def patterns(self) -> tuple[str, ...]:
        """Which files are specs: `[tool.adapterbuild] specs` of the workspace's pyproject.toml, else `specs/*.toml`."""
        path = self.root / "pyproject.toml"
        if not path.exists():
            return DEFAULT_SPECS
        try:
            settings = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("adapterbuild", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"pyproject.toml cannot be read: {error}", Location("pyproject.toml")) from None
        patterns = settings.get("specs", list(DEFAULT_SPECS))
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            hint = 'for example: specs = ["specs/*.toml"]'
            raise UserError("[tool.adapterbuild] specs is no list of patterns", Location("pyproject.toml"), hint)
        return tuple(patterns)

    def spec_paths(self) -> tuple[Path, ...]:
        """Every spec of the default DAG, in order of name; raises UserError where there is none."""
        matching = sorted({path for pattern in self.patterns for path in self.root.glob(pattern)})
        for path in matching:
            # Some editors lock a file by a hidden link that leads nowhere.
            if path.is_symlink() and not path.exists() and not path.name.startswith("."):
                what = f"{self.display(path)} is a link to {path.readlink()}, which is not there"
                raise UserError(what, Location(self.display(path)), "mend the link, or remove it")
        found = [path for path in matching if path.is_file()]
        if not found:
            raise UserError(
                f"no spec matches {', '.join(self.patterns)} in {self.root}", hint="make a workspace with a first spec: engine init DIR"
            )
        return tuple(found)

    def display(self, path: Path) -> str:
        """PATH as messages show it: relative to the workspace where it is inside."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def select(paths: Iterable[Path], workspace: Workspace, others: Iterable[str] = ()) -> tuple[Path, ...]:
    """The specs that the user named by file, each resolved and checked to be the workspace's; OTHERS' names might be meant instead."""
    chosen, known = [], workspace.spec_paths()
    meant = {path.resolve(): path for path in known}  # a spec may be a link, and named by where it leads
    for path in paths:
        full = path if path.is_absolute() else Path.cwd() / path
        full = full if full.exists() else workspace.root / path
        if not full.exists():
            names = [*(workspace.display(p) for p in known), *others]
            raise UserError(f"there is no spec, experiment or step {path}", hint=did_you_mean(str(path), names))
        if full.resolve() not in meant:
            raise UserError(
                f"{path} is not one of this workspace's specs ({', '.join(workspace.patterns)})",
                hint="give its own workspace with --workspace DIR, or add it under [tool.adapterbuild] specs in pyproject.toml",
            )
        chosen.append(meant[full.resolve()])
    return tuple(chosen)
