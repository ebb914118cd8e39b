"""`python -P -m adapterbuild MODULE ...`: run a module of this project, even where others have its name.

Such a module may be in a workspace (`stages/__init__.py`) or installed: the package index has one. So each process of this project starts
here, with a safe path, and finds these two names only in the folder of the project's code: the package `adapterbuild` of the wheel, or the
root of a checkout. This file does the same when run by its path, even if nothing is installed. It must not import from the project at the
top of the module.
"""

import os
import runpy
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

NAMES = ("engine", "stages")


class Ours:
    """An import finder that takes `engine` and `stages` from one folder, before Python searches anywhere else."""

    def __init__(self, root: Path) -> None:
        self.path = [str(root)]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of module NAME if it is one of NAMES, else None."""
        return PathFinder.find_spec(name, self.path) if name in NAMES else None


def holds_code(folder: Path) -> bool:
    """Whether FOLDER is the root of this project's code, not a workspace with packages of the same names."""
    return (folder / "engine" / "core" / "workspace.py").is_file() and (folder / "stages" / "kinds.py").is_file()


def own_root() -> Path:
    """The folder above this file that holds `engine` and `stages`."""
    return next(folder for folder in Path(__file__).resolve().parents if holds_code(folder))


def settle(root: Path) -> None:
    """Import `engine` and `stages` from ROOT, here and in every Python that this process starts, and nothing from the current folder."""
    sys.meta_path.insert(0, Ours(root))
    # At the end: processes started by libraries get only this list, and other files of a checkout must not shadow a library.
    sys.path.append(str(root))
    os.environ["PYTHONSAFEPATH"] = "1"


def command() -> None:
    """Entry point of the command `engine`."""
    settle(own_root())
    from engine.cli.main import main

    main()


def run(arguments: list[str]) -> None:
    """Run the module that the first of ARGUMENTS names, with the rest as its arguments."""
    if not arguments or arguments[0].partition(".")[0] not in NAMES:
        print("usage: python -P -m adapterbuild MODULE ...   (engine, stages, or a module in them)", file=sys.stderr)
        sys.exit(2)
    # A checkout that is its own workspace runs its own code, even if another version is installed.
    here = Path.cwd()
    settle(here if __package__ and holds_code(here) else own_root())
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run(sys.argv[1:])
