"""Builds the wheel with one top-level package, `adapterbuild`, that contains `engine` and `stages`; the repository has both at its root.

The package index has a distribution that imports as `stages`: two packages of the same name in one environment overwrite each other's
files. An editable install keeps `engine` and `stages` importable from the repository, for tests and type checkers, and adds that package.
"""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

NAME = "adapterbuild"


class BuildPy(build_py):
    """setuptools' `build_py`, which then moves the packages below `adapterbuild`."""

    def finalize_options(self) -> None:
        """Count `engine/entry` as the package `adapterbuild` too, also for an editable install."""
        distribution = self.distribution
        found = distribution.packages or []
        distribution.packages = [*found, *([] if NAME in found else [NAME])]
        distribution.package_dir = {**(distribution.package_dir or {}), NAME: "engine/entry"}
        super().finalize_options()

    def run(self) -> None:
        """Build into an empty folder, so that no files of an earlier build get into the wheel, then move the packages."""
        if self.editable_mode:
            super().run()
            return
        library = Path(self.build_lib)
        shutil.rmtree(library, ignore_errors=True)
        super().run()
        for name in ("engine", "stages"):
            shutil.move(library / name, library / NAME / name)


class EggInfo(egg_info):
    """setuptools' `egg_info`, which then names the one top-level package of the distribution."""

    def run(self) -> None:
        """Write the metadata."""
        super().run()
        Path(self.egg_info, "top_level.txt").write_text(f"{NAME}\n", "utf-8")
