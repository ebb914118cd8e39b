"""Versions of the packages that decide results: those of the lock file where the workspace has one, else those installed."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engine.core.errors import UserError

LOCK = "requirements.lock"


@dataclass(frozen=True)
class Environment:
    """The environment that a workspace declares; DVC can watch a lock file, but not what pip has installed."""

    root: Path
    unlocked: dict[str, str] = field(default_factory=dict)
    """The versions that were asked for and that the lock file does not name."""

    @cached_property
    def _locked(self) -> dict[str, str]:
        path = self.root / LOCK
        if not path.exists():
            return {}
        pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", path.read_text("utf-8"), re.MULTILINE)
        return {_normal(name): _public(version) for name, version in pins}

    def version(self, package: str) -> str:
        """The version that counts for identities, without a local label: `2.13.0` is the same for every device's build."""
        if locked := self._locked.get(_normal(package)):
            return locked
        if package not in self.unlocked:
            self.unlocked[package] = installed(package)
        return self.unlocked[package]


def installed(package: str) -> str:
    """The installed version of PACKAGE without its local label; raises UserError where it is missing."""
    from importlib import metadata  # not needed where the lock names everything

    try:
        return _public(metadata.version(package))
    except metadata.PackageNotFoundError:
        raise UserError(f"the package {package} is not installed", hint="install the project's requirements: make setup") from None


def _public(version: str) -> str:
    return version.partition("+")[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
