"""requirements.lock: every package that the project asks for, with the digests of its files, and nothing of the machine that wrote it."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lock

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = list(lock.pins((ROOT / lock.LOCK).read_text("utf-8")))
DEVICES = list(lock.pins((ROOT / lock.DEVICES).read_text("utf-8")))
EXTRAS = PROJECT["optional-dependencies"]
ASKED = [Requirement(text) for text in [*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["eval"], *EXTRAS["serve"]]]


def version(name: str) -> str:
    """The installed version, without the label of its build."""
    return metadata.version(name).partition("+")[0]


@pytest.mark.parametrize("asked", [one for one in ASKED if one.name != PROJECT["name"]], ids=str)
def test_what_the_project_asks_for_is_locked_in_its_range(asked: Requirement):
    (pin,) = [pin for pin in LOCK if pin.name == canonicalize_name(asked.name)]
    assert asked.specifier.contains(pin.version, prereleases=True)


def test_every_package_stands_once_with_digests():
    assert len({pin.name for pin in LOCK + DEVICES}) == len(LOCK + DEVICES) > 200
    assert all(pin.digests for pin in LOCK + DEVICES)


def test_what_is_installed_is_what_is_locked():
    found = {pin.name: (pin.version, version(pin.name)) for pin in LOCK if ";" not in pin.requirement}
    assert {name: both for name, both in found.items() if both[0] != both[1]} == {}


def test_torch_may_be_the_build_for_processors_which_needs_no_device_libraries():
    (torch,) = [pin for pin in LOCK if pin.name == "torch"]
    builds = lock.BUILDS["torch", torch.version]
    assert set(builds.values()) < set(torch.digests)
    for python in ("cp311", "cp312", "cp313"):
        assert f"torch-{torch.version}+cpu-{python}-{python}-manylinux_2_28_x86_64.whl" in builds
    assert not [pin.name for pin in LOCK if re.match(r"cuda-|triton", pin.name)] and {"triton", "nvidia-cublas"} <= {
        pin.name for pin in DEVICES
    }


def test_no_file_of_packages_names_an_index():
    for name in (lock.LOCK, lock.DEVICES, "pyproject.toml", "Makefile"):
        assert not re.search(r"--(extra-)?index-url|--find-links|\[\[tool\.uv\.index", (ROOT / name).read_text("utf-8")), name


def test_a_lock_reads_back_as_it_is_written():
    base, devices = lock.split(LOCK + DEVICES)
    assert (base, devices) == tuple((ROOT / name).read_text("utf-8") for name in (lock.LOCK, lock.DEVICES))


def test_a_torch_without_its_builds_is_told(capsys: pytest.CaptureFixture[str]):
    base, _ = lock.split([lock.Pin("torch==9.0.0 ; sys_platform == 'linux'", ("0" * 64,))])
    assert "no digests of other builds of torch 9.0.0" in capsys.readouterr().err
    assert base.endswith(f"torch==9.0.0 ; sys_platform == 'linux' \\\n    --hash=sha256:{'0' * 64}\n")
