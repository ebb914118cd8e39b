"""What is remembered of a compiled workspace is what compiling gives, and is dropped as soon as anything that decides it has changed."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.identity.environment import installed
from engine.identity.text import resources_text
from engine.plan import compiled_memo as outline
from engine.plan.project import Project

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
HEAVY = {"pydantic", "rich", "yaml", "importlib.metadata", "jinja2"}


@pytest.fixture(autouse=True)
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test writes counts as written before this process started to read."""
    monkeypatch.setattr(outline, "_STARTED", time.time_ns() + 3_600 * 10**9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = Path(shutil.copytree(GOLDEN / "local-model", tmp_path / "workspace"))
    (root / "models/mine/vocabulary").mkdir()
    (root / "models/mine/vocabulary/words.txt").write_text("a\n")
    return root


def project(root: Path) -> Project:
    return Project(Workspace.at(root))


def remembered(root: Path) -> bool:
    """Whether a project of ROOT would be recalled."""
    found = project(root)
    return outline.recall(found._memo, found._state, lambda name: pytest.fail(f"{name} was compiled")) is not None


def contents(found: Project) -> list[object]:
    steps = [
        (step.name, step.kind_name, step.kind, step.plots, step.outputs, step.producers, step.description, step.origin)
        for step in found.graph
    ]
    inputs = [(role, item, item.where) for step in found.graph for role, item in step.inputs.items()]
    return [steps, inputs, found.outline.digests, found.outline.specs, found.outline.files, found.outline.pipeline, found.outline.state]


@pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir()))
def test_what_is_recalled_is_what_was_compiled(case: str, tmp_path: Path):
    root = Path(shutil.copytree(GOLDEN / case, tmp_path / case))
    compiled = project(root)
    assert not remembered(root)
    expected = contents(compiled)
    assert remembered(root)
    recalled = project(root)
    assert contents(recalled) == expected
    assert all(isinstance(step, outline.CachedStep) for step in recalled.graph)
    for step, whole in zip(recalled.graph, compiled.graph, strict=True):
        assert (step.parameters, step.locate(("seed",))) == (whole.parameters, whole.locate(("seed",)))
        assert resources_text(step) == resources_text(whole)
    assert recalled.compiled == compiled.compiled and recalled.identities == compiled.identities


def edit(path: str) -> Callable[[Path], None]:
    def append(root: Path) -> None:
        with (root / path).open("a") as file:
            file.write("\n# a word\n")

    return append


def keep_size_and_time(root: Path) -> None:
    path = root / "specs/answer.toml"
    before = path.stat()
    path.write_text(path.read_text().replace("a", "b", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns


EDITS = {
    "a spec": edit("specs/answer.toml"),
    "a spec, to the same size and time": keep_size_and_time,
    "a new spec": lambda root: shutil.copy(root / "specs/answer.toml", root / "specs/more.toml"),
    "a spec renamed": lambda root: (root / "specs/answer.toml").rename(root / "specs/other.toml"),
    "a lock file": lambda root: (root / "requirements.lock").write_text("torch==9.9.9\n"),
    "the own lock file": lambda root: (root / "adapterbuild.lock").write_text("torch==9.9.9\n"),
    "what counts as a spec": lambda root: (root / "pyproject.toml").write_text('[tool.adapterbuild]\nspecs = ["specs/a*.toml"]\n'),
    "rows": edit("data/rows.jsonl"),
    "a file below a folder": edit("models/mine/vocabulary/words.txt"),
    "a model's configuration gone": lambda root: (root / "models/mine/config.json").unlink(),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_a_change_of_what_decides_it_drops_it(change: Callable[[Path], None], root: Path):
    assert contents(project(root)) and remembered(root)
    change(root)
    assert not remembered(root)


def test_a_change_of_a_part_that_lies_elsewhere_drops_it(root: Path, tmp_path: Path):
    part = tmp_path / "part.toml"
    part.write_text("[evaluation]\nrows = 3\n")
    spec = root / "specs/answer.toml"
    spec.write_text(f'extends = ["{part}"]\n' + spec.read_text())
    assert contents(project(root)) and remembered(root)
    part.write_text("[evaluation]\nrows = 4\n")
    assert not remembered(root)


def test_a_change_of_the_code_drops_it(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for package in ("engine", "stages"):
        shutil.copytree(ROOT / package, tmp_path / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("engine.plan.project.CODE_ROOT", tmp_path / "code")
    assert contents(project(root)) and remembered(root)
    (tmp_path / "code/engine/__pycache__").mkdir()
    (tmp_path / "code/engine/__pycache__/x.pyc").write_text("compiled")
    assert remembered(root)
    edit("stages/split/body.py")(tmp_path / "code")
    assert not remembered(root)


def test_another_version_of_a_package_that_no_lock_names_drops_it(root: Path, monkeypatch: pytest.MonkeyPatch):
    assert contents(project(root)) and remembered(root)
    monkeypatch.setattr("engine.identity.environment.find", lambda package: "9.9.9")
    assert not remembered(root)


def test_nothing_is_remembered_of_files_that_changed_while_they_were_read(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outline, "_STARTED", time.time_ns())
    assert contents(project(root)) and not remembered(root)


def loaded(root: Path, *command: str) -> set[str]:
    """The modules that a verb imports."""
    code = "import sys; from engine.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *command], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2), done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_light_verbs_of_a_remembered_workspace_import_no_heavy_library(root: Path):
    (root / "requirements.lock").write_text("".join(f"{package}=={installed(package)}\n" for package in packages(root)))
    project(root).write_compiled(force=True)
    assert contents(project(root)) and remembered(root)
    loaded(root, "plan")  # remembers the costs
    for verb in (("--help",), ("check",), ("plan",), ("plan", "--json", "evaluate-answer")):
        loaded(root, *verb)
        assert not HEAVY & loaded(root, *verb), verb


def test_building_brings_no_heavy_library_before_it_is_needed():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, engine.build.driver; print(*sys.modules)"], cwd=ROOT, capture_output=True, check=True
    )
    assert not HEAVY & set(done.stdout.decode().split())


def packages(root: Path) -> set[str]:
    """The packages that any identity names."""
    texts = project(root).identities.values()
    return {package for text in texts for package in json.loads(text)["environment"]}


WITHOUT_MODEL = """
[experiment]
name = "{name}"

[model]
name = "own"
architecture = {{ kind = "llama", hidden_size = 16, layers = 1, heads = 2, max_length = {positions} }}
tokenizer = {{ vocab_size = 300, tasks = ["a"] }}

[tasks.a]
source = {{ kind = "jsonl", path = "data/{rows}" }}
prompts = ["Say:"]
teacher = {{ kind = "gold", column = "answer" }}
max_new_tokens = 4

[tokenization]
max_length = 64

[mixture]
tasks = ["a"]

[training]
method = "lora"
learning_rate = 1e-3
"""


def write(root: Path, name: str, positions: int = 64, rows: str = "rows.jsonl", more: str = "") -> None:
    (root / f"specs/{name}.toml").write_text(WITHOUT_MODEL.format(name=name, positions=positions, rows=rows) + more)


def problems(root: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        assert project(root).graph
    return [problem.what for problem in caught.value.problems]


def test_one_broken_spec_hides_neither_clashes_nor_missing_files_of_the_others(root: Path):
    write(root, "one")
    write(root, "two", positions=32)
    write(root, "three", rows="lost.jsonl", more="\n[evaluation]\nrowz = 3\n")
    write(root, "four", rows="gone.jsonl")
    write(root, "rival", more='\n[evaluation]\ncompare = ["three"]\n')
    write(root, "follower")
    path = root / "specs/follower.toml"
    head, rest = path.read_text().split("[model]")
    path.write_text(f'{head}[model]\nexperiment = "three"\n\n[tasks.a]' + rest.split("[tasks.a]")[1])
    found = problems(root)
    assert "unknown key 'rowz' in evaluation" in found
    assert any("two different steps are named 'initialize-own'" in what for what in found)
    assert "file not found: data/gone.jsonl" in found
    assert not any(what.startswith("no experiment ") for what in found), "three is there, only broken"
    (root / "specs/three.toml").unlink()
    assert problems(root).count("no experiment 'three' in this workspace") == 2
