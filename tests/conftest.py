"""What all tests have in common."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from benchmarks.common import REAL_MODEL
from tests.support.avx512 import force
from tests.support.s3 import bucket

__all__ = ["bucket"]

# A busy machine is no fault of the code: hypothesis would fail a test that once took longer than usual.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """QLoRA's tests hold whatever the processor has; `make test CI=1` runs them with each answer."""
    parser.addoption("--avx512-bf16", choices=["yes", "no"], help="what bitsandbytes is told about the processor, whatever it has")


def pytest_configure(config: pytest.Config) -> None:
    """What is remembered between runs is shared by all processes of the tests, and no business of the user's cache."""
    if answer := config.getoption("--avx512-bf16"):
        force(answer == "yes")
    # What a shell starts in the background ignores ^C, and so would every program that a test interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What is printed must not depend on the terminal that starts the tests; some runners set these for their processes.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    os.environ["DVC_NO_ANALYTICS"] = "1"  # each `dvc` would start a process that reports to its makers
    if not hasattr(config, "workerinput"):
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        os.environ.setdefault("MPLCONFIGDIR", str(base / "matplotlib"))  # its list of fonts takes seconds to make
        os.environ["XDG_CACHE_HOME"] = config.stash[_CACHE] = tempfile.mkdtemp(prefix="adapterbuild-tests-")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Take back what the tests of a module have left in the environment: code of ours that runs in this process sets variables for
    libraries, such as those that keep the hub offline, and processes that later tests start would inherit them."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        for name in os.environ.keys() | _ENVIRONMENT.keys():
            if name.startswith("PYTEST_"):
                continue
            if name in _ENVIRONMENT:
                os.environ[name] = _ENVIRONMENT[name]
            else:
                del os.environ[name]
    return result


def pytest_sessionstart() -> None:
    _ENVIRONMENT.update(os.environ)


_ENVIRONMENT: dict[str, str] = {}
"""The environment as the tests find it."""


def pytest_unconfigure(config: pytest.Config) -> None:
    if folder := config.stash.get(_CACHE, None):
        shutil.rmtree(folder, ignore_errors=True)


_CACHE = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each of two processes its long modules first, and end with short tests, so that none waits for the other.

    `--dist worksteal` begins with the first half of all tests in one process and the second in the other. Modules stay whole, for they
    share what their tests build; those of `tests/end_to_end` share one workspace. Modules that fork come before all others: once a process
    has computed a gradient, PyTorch refuses gradients in its children.
    """
    if not REAL_MODEL.exists():
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(pytest.mark.skip(reason="the real model is not installed: make real-model"))
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("long")}
    forking = [item for item in items if item.get_closest_marker("forks")]
    rest = [item for item in items if not item.get_closest_marker("forks")]
    road = [item for item in rest if item.path in slow and item.path.parent.name == "end_to_end"]
    others = [item for item in rest if item.path in slow and item.path.parent.name != "end_to_end"]
    short = [item for item in rest if item.path not in slow]
    room = max(0, len(items) // 2 - len(forking) - len(road))
    items[:] = [*forking, *road, *short[:room], *others, *short[room:]]
