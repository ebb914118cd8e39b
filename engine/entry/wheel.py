"""How a wheel is built: one name of its own, `adapterbuild`, with `engine` and `stages` inside; the repository keeps both at its top.

The package index has a distribution that imports as `stages`: two packages of one name in one environment write over each other's files.
An editable install keeps `engine` and `stages` importable from the repository, which tests and type checkers want, and adds that name.
"""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

NAME = "adapterbuild"


class BuildPy(build_py):
    """setuptools' `build_py`, which then moves our packages below the name of the wheel."""

    def finalize_options(self) -> None:
        """Count `engine/entry` as the package `adapterbuild` too, also for an editable install."""
        told = self.distribution
        found = told.packages or []
        told.packages = [*found, *([] if NAME in found else [NAME])]
        told.package_dir = {**(told.package_dir or {}), NAME: "engine/entry"}
        super().finalize_options()

    def run(self) -> None:
        """Build, and move; what an earlier build left in the folder must not come along."""
        if self.editable_mode:
            super().run()
            return
        library = Path(self.build_lib)
        shutil.rmtree(library, ignore_errors=True)
        super().run()
        for name in ("engine", "stages"):
            shutil.move(library / name, library / NAME / name)


class EggInfo(egg_info):
    """setuptools' `egg_info`, which then says the one name that the distribution has."""

    def run(self) -> None:
        """Write the metadata."""
        super().run()
        Path(self.egg_info, "top_level.txt").write_text(f"{NAME}\n", "utf-8")
