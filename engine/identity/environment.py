"""Versions of the packages that decide results: those of the workspace's lock where it names them, else those installed."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engine.core.errors import Location, UserError

LOCK = "adapterbuild.lock"
"""Written by `engine lock`: what was installed, of the packages that matter."""

REQUIREMENTS = "requirements.lock"
"""A lock of another tool's; where a workspace has both, the own one counts for what it names."""

LOCKS = (LOCK, REQUIREMENTS)

_HEADER = f"""\
# Written by `engine lock`: the versions of the packages that decide results; steps run under these alone.
# To install them: pip install -r {LOCK}
"""


@dataclass(frozen=True)
class Environment:
    """The environment that a workspace declares; DVC can watch a lock file, but not what pip has installed."""

    root: Path
    pins: Mapping[str, str] | None = None
    """What the own lock is taken to say; None: what it says."""
    unlocked: dict[str, str] = field(default_factory=dict)
    """The versions that were asked for and that no lock names."""
    asked: dict[str, str] = field(default_factory=dict)
    """Every version that was asked for."""

    @cached_property
    def _locked(self) -> dict[str, str]:
        own = parse_lock(self.root) if self.pins is None else self.pins
        return _required(self.root) | {normal(name): version for name, version in own.items()}

    def version(self, package: str) -> str:
        """The version that counts for identities, without a local label: `2.13.0` is the same for every device's build."""
        if package not in self.asked:
            self.asked[package] = self._locked.get(normal(package)) or self._installed(package)
        return self.asked[package]

    def _installed(self, package: str) -> str:
        if (found := find(package)) is None:
            held = next((name for name in LOCKS if (self.root / name).exists()), None)
            said = f"{held} does not name its version" if held else "no lock names its version"
            hint = f"pip install {package}, or run `engine lock` where it is installed and bring {LOCK} here"
            raise UserError(f"the package {package} is not installed, and {said}", hint=hint)
        self.unlocked[package] = found
        return found


def parse_lock(root: Path) -> dict[str, str]:
    """What the own lock of the workspace at ROOT says, by package; empty where there is none. Raises UserError for a damaged one."""
    path, found = root / LOCK, dict[str, str]()
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.exists() else (), 1):
        said = line.partition("#")[0].strip()
        if not said:
            continue
        place = Location(LOCK, number, 1, line)
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)", said)
        if pin is None:
            raise UserError("a line of this file reads NAME==VERSION", place, "write it anew from what is installed: engine lock --upgrade")
        if normal(pin[1]) in map(normal, found):
            raise UserError(f"{pin[1]} has a version already", place, "remove one of the two lines")
        found[pin[1]] = _public(pin[2])
    return found


def lock_text(pins: Mapping[str, str]) -> str:
    """The text of the own lock that says PINS; pip reads it too."""
    return _HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def _required(root: Path) -> dict[str, str]:
    path = root / REQUIREMENTS
    if not path.exists():
        return {}
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", path.read_text("utf-8"), re.MULTILINE)
    return {normal(name): _public(version) for name, version in pins}


def find(package: str) -> str | None:
    """The installed version of PACKAGE without its local label; None where it is missing."""
    from importlib import metadata  # not needed where the lock names everything

    try:
        return _public(metadata.version(package))
    except metadata.PackageNotFoundError:
        return None


def installed(package: str) -> str:
    """As `find`; raises UserError where it is missing."""
    if (found := find(package)) is None:
        raise UserError(f"the package {package} is not installed", hint=f"pip install {package}")
    return found


def way_out(root: Path, wanted: Mapping[str, str]) -> str:
    """What to do where other versions are installed than those that are WANTED, by package."""
    if (root / REQUIREMENTS).exists() and not (root / LOCK).exists():
        return "run: make setup" if (root / "Makefile").exists() else f"run: pip install -r {REQUIREMENTS}"
    pins = shlex.join(f"{name}=={version}" for name, version in wanted.items())
    return f"pip install {pins}; or go on with what is installed: engine lock --upgrade"


def _public(version: str) -> str:
    return version.partition("+")[0]


def normal(name: str) -> str:
    """The name of a package as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
