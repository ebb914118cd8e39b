"""Steps as forks of one process that has imported the libraries: they are what processes of their own are; builds are real ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from tests.end_to_end.conftest import Place, make_place
from tests.end_to_end.test_kills import wait_until

pytestmark = pytest.mark.slow

STATE = """
import ctypes, json, os, resource, signal, socket, sys
from pathlib import Path
from stages.models.folders import prepare_process

def run(parameters, job):
    prepare_process(threads=1, parts=1)
    import deepspeed, huggingface_hub.constants, peft, rouge_score.rouge_scorer, torch, transformers
    dies = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(dies))
    signals = {number.name: repr(signal.getsignal(number)).partition(" at ")[0] for number in signal.valid_signals() if number < 32}
    open_files = {}
    for fd in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{fd}"):
            name = os.readlink(f"/proc/self/fd/{fd}").partition("[")[0]
            # Which core a step claims, if any is free, depends on other steps of this machine.
            if "adapterbuild-cores" not in name:
                open_files[fd] = name
    state = {
        "environment": dict(os.environ), "cwd": os.getcwd(), "umask": os.umask(0o77), "group": os.getpgrp(), "session": os.getsid(0),
        "files": open_files, "signals": signals, "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "dies with parent": dies.value,
        "arguments": sys.argv, "path": sys.path, "main": sys.modules["__main__"].__file__,
        "first finder": type(sys.meta_path[0]).__name__,
        "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering], "nice": os.nice(0),
        "limits": [resource.getrlimit(number) for number in range(16)], "cores": len(os.sched_getaffinity(0)),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()], "instructions": torch.backends.cpu.get_cpu_capability(),
        "denormals": (torch.tensor([1e-40]) * 1).item() > 0,
        "deterministic": torch.are_deterministic_algorithms_enabled(), "offline": huggingface_hub.constants.HF_HUB_OFFLINE,
        "verbosity": transformers.utils.logging.get_verbosity(), "gradients": torch.is_grad_enabled(),
        "dtype": str(torch.get_default_dtype()),
    }
    Path("state.json").write_text(json.dumps(state))
    Path("parent").write_bytes(Path(f"/proc/{os.getppid()}/cmdline").read_bytes())
    print("said by the step", file=sys.stderr)
    (job.output / "file").write_text("made")
    return {}
"""
"""A body that describes its process."""

WAITS = """
import os, time
from pathlib import Path

def run(parameters, job):
    Path("parent").write_bytes(Path(f"/proc/{os.getppid()}/cmdline").read_bytes())
    Path("parent.pid").write_text(str(os.getppid()))
    Path("pid").write_text(str(os.getpid()))
    while Path("wait").exists():
        time.sleep(0.01)
    (job.output / "file").write_text("WORD")
    return {}
"""
"""A body that ends when the file `wait` is removed."""

STEP = "initialize-toy"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A workspace whose fork server imports next to nothing and whose model is made by `WAITS`: not to be changed."""
    place = make_place(tmp_path_factory.mktemp("quick") / "workspace")
    place.write("stages/initialize/body.py", WAITS)
    server = (place.root / "engine/entry/fork_server.py").read_text()
    before, _, after = server.partition("\n_LIBRARIES = (\n")
    place.write("engine/entry/fork_server.py", f'{before}\n_LIBRARIES = ("json",)\n_OTHERS = (\n{after}')
    place.run("engine", "build", "generate-b", "split-b")
    return place


@pytest.fixture
def quick_place(quick: Place, tmp_path: Path) -> Place:
    """A copy of the quick workspace."""
    return quick.copy_to(tmp_path / "workspace")


def build(place: Place, *options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`engine build` by a Python of its own."""
    command = [sys.executable, "-m", "engine", "build", *options]
    variables = dvc_environment() | (environment or {})
    return subprocess.run(command, cwd=place.root, env=variables, capture_output=True, text=True, check=False, timeout=300)


def is_fork(place: Place) -> bool:
    """Whether the model's step was started by a fork server."""
    return b"engine.entry.fork_server" in (place.root / "parent").read_bytes()


def alive(place: Place) -> list[str]:
    """The processes in this workspace."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").resolve() == place.root and "Z" not in (entry / "stat").read_text().rpartition(")")[2].split()[0]:
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it ended while we looked
    return found


def test_a_fork_is_in_the_state_of_a_process_of_its_own(tmp_path: Path):
    place = make_place(tmp_path / "workspace")
    place.write("stages/initialize/body.py", STATE)
    states = []
    for options in ((), ("--no-fork",)):
        done = build(place, *options, STEP, environment={"ADAPTERBUILD_TEST": "seen", "PYTHONHASHSEED": "0"})
        assert done.returncode == 0 and "said by the step" in done.stderr, done.stderr
        assert is_fork(place) == (not options)
        states.append(json.loads((place.root / "state.json").read_text()))
        shutil.rmtree(place.root / "artifacts")
        for path in (place.root / "dvc.lock", place.root / ".dvc/cache"):
            subprocess.run(["rm", "-rf", path], check=True)
    assert states[0]["environment"]["ADAPTERBUILD_TEST"] == "seen"
    for key, value in states[1].items():
        assert states[0][key] == value, key


@pytest.mark.parametrize(
    ("whom", "number"),
    [("build", signal.SIGKILL), ("build", signal.SIGTERM), ("group", signal.SIGINT), ("step", signal.SIGKILL), ("server", signal.SIGKILL)],
)
def test_whoever_is_killed_no_process_lives_on_and_the_next_build_completes(quick_place: Place, whom: str, number: signal.Signals):
    place = quick_place
    (place.root / "wait").touch()
    command = [sys.executable, "-m", "engine", "build", STEP]
    process = subprocess.Popen(
        command,
        cwd=place.root,
        env=dvc_environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it, and so do the tests there
    )
    assert wait_until((place.root / "pid").exists, 240) and is_fork(place)
    time.sleep(0.1)  # both files are written
    pids = {"build": process.pid, "group": -process.pid}
    pids |= {"step": int((place.root / "pid").read_text()), "server": int((place.root / "parent.pid").read_text())}
    os.kill(pids[whom], number) if whom != "group" else os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=240)
    assert wait_until(lambda: not alive(place), 60), alive(place)
    status, said = {"build": (-9, ""), "group": (130, "interrupted"), "step": (1, "exit status -9"), "server": (1, f"{STEP} failed")}[whom]
    if (whom, number) == ("build", signal.SIGTERM):
        status, said = 130, "interrupted"
    assert process.returncode == status and said in errors and "Traceback" not in errors, errors
    (place.root / "wait").unlink()
    done = build(place, STEP)
    assert done.returncode == 0 and is_fork(place), done.stderr
    assert not alive(place)


def test_steps_with_numerics_of_the_machine_or_without_forks_are_processes_of_their_own(quick_place: Place):
    place = quick_place
    for word, options, changed in (("a", (), ""), ("b", ("--no-fork",), ""), ("c", (), 'numerics = "native"\n')):
        place.write("stages/initialize/body.py", WAITS.replace("WORD", word))
        place.edit("specs/parts/common.toml", "threads = 1\n", f"threads = 1\n{changed}")
        assert build(place, STEP, *options).returncode == 0
        assert (place.root / f"artifacts/{STEP}/file").read_text() == word
        assert is_fork(place) == (word == "a")


SERVED = """
import sys, time
from pathlib import Path
from engine.build.driver import dvc_environment
from engine.build.forks import Forks
from engine.core.workspace import Workspace
from engine.plan.project import Project

def resolved():
    project = Project(Workspace.at(Path()))
    project.write_compiled()
    project.resolve()
    return project

project = resolved()
step = project.graph[sys.argv[1]]
forks = Forks(project.root, dvc_environment(), project.graph)
assert forks.start(step, None).wait() == 0
print(Path(f"artifacts/{step.name}/file").read_text())
body = Path("stages/initialize/body.py")
body.write_text(body.read_text().replace("WORD", "EDITED"))
resolved()
assert forks.start(step, None).wait() == 0
print(Path(f"artifacts/{step.name}/file").read_text())
Path("x-packages/package").mkdir()
assert forks.start(step, None) is None
forks.close()
"""


def test_a_fork_runs_the_code_on_disk_and_none_runs_once_packages_were_installed(quick_place: Place):
    place = quick_place
    (place.root / "x-packages").mkdir()
    environment = dvc_environment() | {"PYTHONPATH": f"{place.root}:{place.root}/x-packages"}
    done = subprocess.run(
        [sys.executable, "-c", SERVED, STEP], cwd=place.root, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0 and done.stdout == "WORD\nEDITED\n", done.stderr


def test_steps_start_as_processes_of_their_own_when_the_server_cannot(quick_place: Place):
    place = quick_place
    place.write("engine/entry/fork_server.py", "raise SystemExit('no server')\n")
    done = build(place, STEP)
    assert done.returncode == 0 and not is_fork(place), done.stderr
    assert (place.root / ".dvc/tmp/adapterbuild/fork-server.log").read_text() == "no server\n"


def test_a_build_that_needs_no_model_starts_no_server(quick_place: Place):
    place = quick_place
    place.edit("specs/parts/common.toml", "Double {{ word }}:", "Two of {{ word }}:")
    done = build(place, "split-b")
    assert done.returncode == 0 and "done     split-b" in done.stderr, done.stderr
    assert not (place.root / ".dvc/tmp/adapterbuild/fork-server.log").exists()
