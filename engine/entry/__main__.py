"""`python -P -m adapterbuild MODULE ...`: run a module of ours, as `python -m MODULE` would, whatever else is named `engine` or `stages`.

Such a module may lie in a workspace (`stages/__init__.py`) or be installed: the package index has one. So each process of ours begins here,
with a safe path, and finds these two names in the code's own folder alone. That is the folder above this file: of the wheel the package
`adapterbuild`, of a checkout its root. By its path this file does the same, also where nothing is installed. No import of ours may stand
at the top.
"""

import os
import runpy
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

NAMES = ("engine", "stages")


class Ours:
    """Finds the packages of ours in one folder, before Python looks anywhere else."""

    def __init__(self, root: Path) -> None:
        self.path = [str(root)]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Where NAME lies, if it is one of ours."""
        return PathFinder.find_spec(name, self.path) if name in NAMES else None


def holds_code(folder: Path) -> bool:
    """Whether FOLDER is the root of this project's code, and no workspace with packages of such names."""
    return (folder / "engine" / "core" / "workspace.py").is_file() and (folder / "stages" / "kinds.py").is_file()


def own_root() -> Path:
    """The folder that holds `engine` and `stages` beside this very file."""
    return next(folder for folder in Path(__file__).resolve().parents if holds_code(folder))


def settle(root: Path) -> None:
    """Take `engine` and `stages` from ROOT, here and in every Python that this process starts, and nothing from the folder it runs in."""
    sys.meta_path.insert(0, Ours(root))
    # Last of all: processes that libraries start are told this list alone, and what else lies in a checkout must hide no library.
    sys.path.append(str(root))
    os.environ["PYTHONSAFEPATH"] = "1"


def command() -> None:
    """The command `engine`."""
    settle(own_root())
    from engine.cli.main import main

    main()


def run(arguments: list[str]) -> None:
    """Run the module that ARGUMENTS name, with the rest as its own."""
    if not arguments or arguments[0].partition(".")[0] not in NAMES:
        print("usage: python -P -m adapterbuild MODULE ...   (engine, stages, or a module in them)", file=sys.stderr)
        sys.exit(2)
    # A checkout that is its own workspace runs its own code, also where another one is installed.
    here = Path.cwd()
    settle(here if __package__ and holds_code(here) else own_root())
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run(sys.argv[1:])
