"""Versions of the packages that affect results: from the workspace's lock if it lists them, else the installed ones."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engine.core.errors import Location, UserError

LOCK = "adapterbuild.lock"
"""Written by `engine lock`: the installed versions of the packages that affect results."""

REQUIREMENTS = "requirements.lock"
"""The lock file of another tool; if a workspace has both, adapterbuild.lock takes precedence for the packages that it lists."""

LOCKS = (LOCK, REQUIREMENTS)

_HEADER = f"""\
# Written by `engine lock`: the versions of the packages that affect results; steps run with these versions only.
# To install them: pip install adapterbuild -r {LOCK}
"""


@dataclass(frozen=True)
class Environment:
    """The package versions that a workspace declares: DVC can track a lock file, but not what pip has installed."""

    root: Path
    pins: Mapping[str, str] | None = None
    """Used in place of the content of adapterbuild.lock; None: the file is read."""
    unlocked: dict[str, str] = field(default_factory=dict)
    """The requested versions of packages that no lock lists."""
    asked: dict[str, str] = field(default_factory=dict)
    """All versions requested so far, by package."""

    @cached_property
    def _locked(self) -> dict[str, str]:
        own = parse_lock(self.root) if self.pins is None else self.pins
        return _required(self.root) | {normal(name): version for name, version in own.items()}

    def lists(self, package: str) -> bool:
        """Whether a lock of the workspace lists PACKAGE, so that identities can be computed where it is not installed."""
        return normal(package) in self._locked

    def version(self, package: str) -> str:
        """The version that identities record, without a local label, so that `2.13.0` is the same for all builds of a package."""
        if package not in self.asked:
            self.asked[package] = self._locked.get(normal(package)) or self._installed(package)
        return self.asked[package]

    def _installed(self, package: str) -> str:
        if (found := find(package)) is None:
            lock = next((name for name in LOCKS if (self.root / name).exists()), None)
            reason = f"{lock} does not list it" if lock else "no lock lists it"
            hint = f"pip install {package}, or run `engine lock` where it is installed and copy {LOCK} here"
            raise UserError(f"package {package} is not installed, and {reason}", hint=hint)
        self.unlocked[package] = found
        return found


def parse_lock(root: Path) -> dict[str, str]:
    """The versions in adapterbuild.lock of the workspace at ROOT, by package; empty without the file. Raises UserError if it is invalid."""
    path, found = root / LOCK, dict[str, str]()
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.exists() else (), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        place = Location(LOCK, number, 1, line)
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)", entry)
        if pin is None:
            hint = "fix the line, or rewrite the file from the installed packages: engine lock --upgrade"
            raise UserError(f"expected NAME==VERSION, got '{entry}'", place, hint)
        if normal(pin[1]) in map(normal, found):
            raise UserError(f"{pin[1]} is listed twice", place, "remove one of the two lines")
        found[pin[1]] = _public(pin[2])
    return found


def lock_text(pins: Mapping[str, str]) -> str:
    """The text of adapterbuild.lock with PINS; also a valid requirements file for pip."""
    return _HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def _required(root: Path) -> dict[str, str]:
    path = root / REQUIREMENTS
    if not path.exists():
        return {}
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", path.read_text("utf-8"), re.MULTILINE)
    return {normal(name): _public(version) for name, version in pins}


def find(package: str) -> str | None:
    """The installed version of PACKAGE without its local label; None if it is not installed."""
    from importlib import metadata  # not needed if the lock lists everything

    try:
        return _public(metadata.version(package))
    except metadata.PackageNotFoundError:
        return None


def installed(package: str) -> str:
    """As `find`, but raises UserError if PACKAGE is not installed."""
    if (found := find(package)) is None:
        raise UserError(f"package {package} is not installed", hint=f"pip install {package}")
    return found


def way_out(root: Path, wanted: Mapping[str, str]) -> str:
    """How to resolve a difference between the installed versions and those that are WANTED, by package."""
    if (root / REQUIREMENTS).exists() and not (root / LOCK).exists():
        return "run: make setup" if (root / "Makefile").exists() else f"run: pip install -r {REQUIREMENTS}"
    pins = shlex.join(f"{name}=={version}" for name, version in wanted.items())
    return f"pip install {pins}; or keep the installed versions: engine lock --upgrade"


def _public(version: str) -> str:
    return version.partition("+")[0]


def normal(name: str) -> str:
    """The normalized name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
