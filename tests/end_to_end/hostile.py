"""A workspace whose own modules have the names of everything that the tool imports; each says so when somebody takes it."""

import json
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.end_to_end.conftest import COMMON, ROOT, spec

SAID = "a module of the workspace was imported"


def dependencies() -> set[str]:
    """What every dependency of ours, optional ones too, is imported by, where it is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {Requirement(one).name.lower() for one in asked}
    return {module for module, owners in metadata.packages_distributions().items() if names & {owner.lower() for owner in owners}}


def shadow(root: Path) -> set[str]:
    """Put modules of the names of our dependencies and of the standard library into ROOT, and packages of our own names; the names."""
    modules = {name for name in {*dependencies(), *sys.stdlib_module_names} if name.isidentifier() and not (root / name).exists()}
    packages = {"engine", "stages", "adapterbuild"}
    for name in modules - packages:
        (root / f"{name}.py").write_text(f"raise SystemExit('{SAID}: {name}')\n")
    for name in packages:
        (root / name).mkdir()
        for file in ("__init__.py", "__main__.py"):
            (root / name / file).write_text(f"raise SystemExit('{SAID}: {name}')\n")
    return modules | packages


def write(root: Path, more: str = "") -> Path:
    """Specs and rows of one tiny experiment in ROOT; MORE goes into its spec."""
    (root / "data").mkdir(parents=True)
    (root / "specs/parts").mkdir(parents=True)
    for name in "ab":
        rows = [{"word": f"w{n}", "double": f"w{n} w{n}"} for n in range(40)]
        (root / f"data/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "specs/parts/common.toml").write_text(COMMON)
    (root / "specs/one.toml").write_text(spec("one", "a", more=more))
    return root
