"""Builds killed at random moments: no child lives on, nothing half or stale is taken for good, the next build completes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from engine.dvc.dvcfile import parse_lock
from engine.identity.text import folder_digest
from tests.end_to_end.conftest import Place, address
from tests.end_to_end.light import TARGETS

pytestmark = pytest.mark.slow

COMMANDS = {
    "engine build": ["engine", "build", *TARGETS],
    "engine build -j 2": ["engine", "build", "--jobs", "2", *TARGETS],
    "dvc repro": ["dvc", "repro", *TARGETS],
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
CASES = [("engine build -j 2", 1), *(pytest.param(name, 3, marks=pytest.mark.long) for name in COMMANDS)]
"""Commands, and how often each signal is sent to one."""


SERVER = b"engine.entry.fork_server"


def steps_alive(root: Path) -> list[int]:
    """Processes that run a step of this workspace: with a command of their own, or forks of a build's fork server."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                parent = Path("/proc", (entry / "stat").read_text().rpartition(") ")[2].split()[1])
                is_fork = SERVER in command and SERVER in (parent / "cmdline").read_bytes()
                if (b"stages" in command or is_fork) and (entry / "cwd").resolve() == root:
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended while we looked
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def digests(root: Path) -> dict[str, str]:
    return {name: folder_digest(root / "artifacts" / name) for name in parse_lock((root / "dvc.lock").read_text()) if name != "resolve"}


def check_after_a_kill(place: Place) -> None:
    assert wait_until(lambda: not steps_alive(place.root)), "a step lives on"
    if (place.root / "dvc.lock").exists():
        parse_lock((place.root / "dvc.lock").read_text())
    for name, action in place.plan().items():
        provenance = place.root / f"artifacts/{name}.provenance.json"
        if action == "keep" and name != "resolve":
            assert address(provenance) == folder_digest(place.root / "artifacts" / name), f"{name} is half there"


@pytest.mark.parametrize(("name", "rounds"), CASES)
def test_killed_at_random_moments(name: str, rounds: int, light_place: Place):
    place = light_place
    draw = random.Random(f"{name} {rounds}")
    killed = 0
    command = [sys.executable, "-m", *COMMANDS[name]]
    place.run("engine", "build", *TARGETS)
    place.edit("specs/parts/common.toml", "Say ", "Say 0 ")
    started = time.monotonic()
    subprocess.run(command, cwd=place.root, env=dvc_environment(), check=True, capture_output=True)
    undisturbed = time.monotonic() - started  # the moments are spread over what such a build takes on this machine, as busy as it is
    for count in range(1, rounds * len(SIGNALS) + 1):
        place.edit("specs/parts/common.toml", f"Say {count - 1} ", f"Say {count} ")
        process = subprocess.Popen(command, cwd=place.root, env=dvc_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.05, 0.6) * undisturbed)  # a machine that is less busy by now is faster
        if draw.random() < 0.3 and (alive := steps_alive(place.root)):
            os.kill(alive[0], signal.SIGKILL)  # the step itself
            killed += 1
        elif process.poll() is None:
            process.send_signal(SIGNALS[count % len(SIGNALS)])
            killed += 1
        else:
            undisturbed /= 2  # the machine is less busy than it was
        process.wait(60)
        check_after_a_kill(place)
    assert killed >= rounds, "most builds ended before their moment: too little was killed"
    place.run("engine", "build", *TARGETS)
    after_kills = digests(place.root)
    for folder in ("artifacts", "metrics", ".dvc/cache", "dvc.lock"):
        subprocess.run(["rm", "-rf", str(place.root / folder)], check=True)
    place.run("engine", "build", *TARGETS)
    assert after_kills == digests(place.root), "a stale or damaged result was taken for good"


@pytest.mark.long
def test_an_input_edited_while_a_step_runs_does_not_pass_for_built(light_place: Place):
    place = light_place
    big = "".join(f'{{"word": "w{n}"}}\n' for n in range(60_000))
    place.write("data/a.jsonl", big)
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "generate-a"], cwd=place.root, env=dvc_environment(), stderr=subprocess.PIPE
    )
    assert wait_until(lambda: (place.root / "artifacts/.generate-a.tmp/artifact/rows.jsonl").exists())
    place.write("data/edited", '{"word": "edited"}\n')
    (place.root / "data/edited").replace(place.root / "data/a.jsonl")  # as an editor saves: the step goes on reading the old file
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and b"data/a.jsonl changed while generate-a was running" in errors
    assert not (place.root / "artifacts/generate-a").exists()
    assert place.plan()["generate-a"] == "run"
    place.run("dvc", "repro", "generate-a")
    assert (place.root / "artifacts/generate-a/rows.jsonl").read_text().count("\n") == 1


@pytest.mark.long
def test_a_full_disk_is_a_clear_error_and_leaves_the_cache_intact(light_place: Place):
    """The limit on file size stands in for a disk that is full: a write fails in the middle of a file in the same way."""
    place = light_place
    place.run("engine", "build", *TARGETS)
    before = digests(place.root)
    place.write("data/a.jsonl", "".join(f'{{"word": "w{n}"}}\n' for n in range(40_000)))
    limited = f"ulimit -f 64; exec {sys.executable} -m engine build generate-a"
    done = subprocess.run(["bash", "-c", limited], cwd=place.root, env=dvc_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "size limit" in done.stderr, done.stderr
    assert not (place.root / "artifacts/.generate-a.tmp").exists()
    place.git("checkout", "--", "data/a.jsonl")
    place.run("engine", "build", *TARGETS)
    assert digests(place.root) == before
