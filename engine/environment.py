"""Versions of the packages that decide results: those of the lock file where the workspace has one, else those installed."""

import re
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from engine.errors import UserError

LOCK = "requirements.lock"


@dataclass(frozen=True)
class Environment:
    """The environment that a workspace declares; DVC can watch a lock file, but not what pip has installed."""

    root: Path

    @cached_property
    def _locked(self) -> dict[str, str]:
        path = self.root / LOCK
        if not path.exists():
            return {}
        pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", path.read_text("utf-8"), re.MULTILINE)
        return {_normal(name): _public(version) for name, version in pins}

    def version(self, package: str) -> str:
        """The version that counts for identities, without a local label: `2.13.0` is the same for every device's build."""
        return self._locked.get(_normal(package)) or installed(package)


def installed(package: str) -> str:
    """The installed version of PACKAGE without its local label; raises UserError where it is missing."""
    try:
        return _public(metadata.version(package))
    except metadata.PackageNotFoundError:
        raise UserError(f"the package {package} is not installed", hint="install the project's requirements: make setup") from None


def _public(version: str) -> str:
    return version.partition("+")[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
