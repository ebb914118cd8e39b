"""Writes `requirements.lock` from `pyproject.toml`: every package, base and development, with the digests of its files.

One resolution holds for Python 3.11 and all later versions. Versions that are locked stay as they are while `pyproject.toml` allows them;
`--upgrade NAME` moves one. `uv` resolves; pip installs, and refuses a file whose digest is not listed.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, DEVICES = "requirements.lock", "requirements-devices.lock"
OLDEST_PYTHON = "3.11"

_DEVICE_LIBRARIES = re.compile(r"cuda-|nvidia-(?!ml-py)|triton$")
"""What torch's build for CUDA asks for on Linux, and nothing else here does."""

BUILDS = {
    ("torch", "2.13.0"): {
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_aarch64.whl": "84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7",
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
        "torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_aarch64.whl": "6f307c2c32d764ffc6ff6893b801fad6d4752f3e67966cb8abf1843427c02604",
        "torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl": "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
        "torch-2.13.0+cpu-cp313-cp313-manylinux_2_28_aarch64.whl": "0b8f7d0423027ae8b90c7977c627f3379f325363a08224dffad9b4b2d684a83d",
        "torch-2.13.0+cpu-cp313-cp313-manylinux_2_28_x86_64.whl": "3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6",
    }
}
"""Builds of a release that its publisher offers elsewhere than on the package index: torch for processors alone, a tenth in size.

Either may be installed, since a build is a resource and no part of an identity. Another version of torch needs the digests of its own
builds here."""

_HEAD = """\
# Every package that `make setup` installs, base and development, for Python 3.11 and later; written by `make lock`, not by hand.
# pip installs it with --require-hashes --no-deps. What torch's build for CUDA needs in addition: requirements-devices.lock
"""
_DEVICES_HEAD = """\
# The device libraries of torch's build for CUDA; written by `make lock`, not by hand.
# `make setup` installs them where that build was installed: the build for processors alone needs none, and they are gigabytes.
"""


@dataclass(frozen=True)
class Pin:
    """One package of a lock: what stands in its line before the digests, and the digests."""

    requirement: str
    digests: tuple[str, ...]

    @property
    def name(self) -> str:
        """As package indexes spell it: lower case, with hyphens."""
        return re.sub(r"[-_.]+", "-", self.requirement.partition("==")[0].strip()).lower()

    @property
    def version(self) -> str:
        """The one version."""
        return self.requirement.partition("==")[2].partition(";")[0].strip()

    def text(self) -> str:
        """The lines of the file."""
        return " \\\n".join([self.requirement, *(f"    --hash=sha256:{digest}" for digest in self.digests)]) + "\n"


def pins(text: str) -> Iterator[Pin]:
    """The packages of a lock file."""
    logical = re.sub(r"\\\n", "", text)
    for line in logical.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = line.partition(" --hash=")[0].strip()
            yield Pin(requirement, tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", line)))


def resolved(text: str, upgrade: Iterable[str]) -> str:
    """What uv resolves from pyproject.toml; TEXT is the lock so far, whose versions stay."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lock.txt"
        output.write_text(text, "utf-8")
        options = f"--universal --fork-strategy fewest --python-version {OLDEST_PYTHON} --extra dev"
        options += " --generate-hashes --no-annotate --no-header --quiet"
        chosen = [word for name in upgrade for word in ("--upgrade-package", name)]
        command = [
            str(Path(sys.executable).with_name("uv")),
            "pip",
            "compile",
            "pyproject.toml",
            *options.split(),
            *chosen,
            "--output-file",
            str(output),
        ]
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        if ended.returncode:
            sys.exit(ended.returncode)
        return output.read_text("utf-8")


def split(found: Iterable[Pin]) -> tuple[str, str]:
    """The texts of the two lock files, with the digests of the other builds."""
    base, devices = _HEAD, _DEVICES_HEAD
    for pin in found:
        if _DEVICE_LIBRARIES.match(pin.name):
            devices += pin.text()
            continue
        builds = BUILDS.get((pin.name, pin.version), {})
        if pin.name in {name for name, _ in BUILDS} and not builds:
            print(f"warning: no digests of other builds of {pin.name} {pin.version}; add them to tools/lock.py", file=sys.stderr)
        base += Pin(pin.requirement, tuple(sorted({*pin.digests, *builds.values()}))).text()
    return base, devices


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(prog="python -m tools.lock", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--upgrade", nargs="*", default=(), metavar="NAME", help="packages that move to the newest version allowed")
    asked = parser.parse_args()
    before = "".join((ROOT / name).read_text("utf-8") for name in (LOCK, DEVICES) if (ROOT / name).exists())
    for name, text in zip((LOCK, DEVICES), split(pins(resolved(before, asked.upgrade))), strict=True):
        (ROOT / name).write_text(text, "utf-8")
        print(f"wrote {name}: {len(list(pins(text)))} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
