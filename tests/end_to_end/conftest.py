"""A tiny workspace with a copy of the code, built once by a real `dvc repro`; each test gets a copy of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from engine.artifacts.cards import CARD
from engine.build.driver import dvc_environment
from engine.core.digests import folder_digest
from engine.identity.provenance import Provenance, parse
from tests.support import json_output
from tests.support.warm import warm_python

ROOT = Path(__file__).parents[2]
_COLD = {("dvc", "exp"), ("dvc", "queue")}

COMMON = """
[model]
name = "toy"
architecture = { kind = "llama", hidden_size = 16, layers = 1, heads = 2, max_length = 64 }
tokenizer = { vocab_size = 300, tasks = ["b"] }

[tasks.a]
source = { kind = "jsonl", path = "data/a.jsonl" }
prompts = ["Say {{ word }}:"]
teacher = { kind = "gold", column = "word" }
split = { validation = 0.1, test = 0.2 }
max_new_tokens = 4

[tasks.b]
source = { kind = "jsonl", path = "data/b.jsonl" }
prompts = ["Double {{ word }}:", "Twice {{ word }}:"]
teacher = { kind = "gold", column = "double" }
split = { validation = 0.1, test = 0.2 }
max_new_tokens = 4

[training]
method = { kind = "lora", r = 2, lora_alpha = 4 }
steps = 2
global_batch = { rows = 4 }
learning_rate = 1e-3

[evaluation]
metrics = ["exact_match", "eos_rate"]
rows = 4

[resources]
threads = 1
"""


def spec(name: str, *tasks: str, more: str = "") -> str:
    head = f'extends = ["parts/common.toml"]\n\n[experiment]\nname = "{name}"\nseed = 1\n\n'
    return f"{head}[mixture]\ntasks = {json.dumps(list(tasks))}\n{more}"


@dataclass
class Place:
    """A workspace on disk and the commands that are run in it."""

    root: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What `python -m COMMAND` gives here, in a warm Python: the work is that of a process of its own, without the imports."""
        # DVC runs experiments in processes that outlive the command.
        python = Path(sys.executable) if command[:2] in _COLD else warm_python()
        environment = dvc_environment()
        environment["PATH"] = os.pathsep.join([str(python.parent), environment["PATH"]])
        done = subprocess.run([python, "-m", *command], cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        if command[0] == "engine":
            json_output.check(command[1:], done.stdout)
        return done

    def plan(self, *targets: str) -> dict[str, str]:
        done = self.run("engine", "plan", "--json", *targets, check=False)
        assert done.returncode in (0, 2), done.stderr
        return {step["name"]: step["action"] for step in json.loads(done.stdout)["steps"]}

    def reasons(self, step: str) -> list[str]:
        done = self.run("engine", "plan", "--json", check=False)
        return [reason["text"] for s in json.loads(done.stdout)["steps"] if s["name"] == step for reason in s["reasons"]]

    def repro(self, *targets: str) -> dict[str, str]:
        """Every step (of TARGETS, where any are given) and what `dvc repro` did with it; it runs `resolve` always."""
        done = self.run("dvc", "repro", *targets)
        return {name: action for name, action in actions(done.stdout + done.stderr).items() if name != "resolve"}

    def repro_as_planned(self, *targets: str) -> set[str]:
        """The steps that ran; asserts that the plan had said so before, step by step."""
        planned, done = self.plan(*targets), self.repro(*targets)
        planned.pop("resolve")
        for name, action in planned.items():
            assert done[name] == action or action == "maybe", f"{name} was planned {action} and was {done[name]}"
        return {name for name, action in done.items() if action == "run"}

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert old in text, f"{path} does not hold {old!r}"
        file.write_text(text.replace(old, new, 1))

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def copy_to(self, root: Path) -> "Place":
        """A copy of all of it at ROOT; the times of files are kept, so that nothing looks edited."""
        subprocess.run(["cp", "--archive", "--reflink=auto", str(self.root), str(root)], check=True)
        return Place(root)

    def git(self, *command: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(["git", *identity, *command], cwd=self.root, capture_output=True, text=True, check=True).stdout

    def commit(self, message: str = "state") -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)


def told(path: Path) -> Provenance:
    """What the file beside an artifact says."""
    found = parse(path.read_bytes())
    assert found, f"{path} is no provenance"
    return found


def address(path: Path) -> str:
    """The content address that the file beside an artifact says."""
    return told(path).digest


def as_artifact(folder: Path, copy: Path) -> str:
    """The content address of a fetched folder, found as its card says."""
    base = {path.name for path in folder.iterdir() if path.is_symlink()}
    shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns(CARD, "base", *base))
    config = copy / "adapter_config.json"
    text = re.sub(r'"(base_model_name_or_path|revision)": "[^"]*"', r'"\1": null', config.read_text())
    config.write_text(text)
    return folder_digest(copy)


def actions(output: str) -> dict[str, str]:
    patterns = {"keep": r"Stage '(.+?)' didn't change", "restore": r"Stage '(.+?)' is cached", "run": r"Running stage '(.+?)'"}
    found: dict[str, str] = {}
    for action, pattern in patterns.items():
        found |= dict.fromkeys(re.findall(pattern, output), action)
    return found


def make_place(root: Path) -> Place:
    """A fresh workspace with the code inside, its specs compiled and committed."""
    place = Place(root)
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ("engine", "stages"):
        shutil.copytree(ROOT / package, root / package, ignore=ignore)
    for name in ("pyproject.toml", "requirements.lock", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    place.write("data/a.jsonl", "".join(json.dumps({"word": f"w{n}"}) + "\n" for n in range(40)))
    place.write("data/b.jsonl", "".join(json.dumps({"word": f"w{n}", "double": f"w{n} w{n}"}) + "\n" for n in range(40)))
    place.write("specs/parts/common.toml", COMMON)
    place.write("specs/one.toml", spec("one", "a"))
    place.write("specs/two.toml", spec("two", "a", "b"))
    place.git("init", "--quiet")
    place.run("dvc", "init", "--quiet")
    place.run("engine", "compile")
    place.commit("specs")
    return place


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The tiny workspace after one `dvc repro`, shared by all test processes: not to be changed."""
    own = tmp_path_factory.getbasetemp()
    # With several processes each has a folder below the session's; without, the folder is the session's own.
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    root = shared / "built"
    with FileLock(shared / "built.lock"):
        if not (root / "finished").exists():
            shutil.rmtree(root, ignore_errors=True)
            place = make_place(root)
            done = place.repro()
            assert set(done.values()) == {"run"}, done
            place.commit("built")
            (root / "finished").touch()
    return Place(root)


@pytest.fixture(scope="session")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The workspace of tests.end_to_end.talkers, shared by the tests of a process: whoever writes there cleans up."""
    from tests.end_to_end.talkers import make_talkers

    return make_talkers(tmp_path_factory.mktemp("talking"))


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The workspace of tests.end_to_end.light, with nothing built: not to be changed."""
    from tests.end_to_end.light import lighten

    place = make_place(tmp_path_factory.mktemp("light") / "workspace")
    place.run("engine", "build", "initialize-toy", check=False)
    return lighten(place)


@pytest.fixture
def light_place(light: Place, tmp_path: Path) -> Place:
    """A copy of the light workspace."""
    return light.copy_to(tmp_path / "workspace")


@pytest.fixture
def copy_of(built: Place, tmp_path: Path) -> Callable[[], Place]:
    """Copies of the built workspace."""

    def copy() -> Place:
        place = built.copy_to(tmp_path / "workspace")
        (place.root / "finished").unlink()
        return place

    return copy


@pytest.fixture
def place(copy_of: Callable[[], Place]) -> Place:
    return copy_of()
