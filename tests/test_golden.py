"""Golden files: what the specs in tests/golden/<case> compile to, and what `engine plan` prints, byte for byte.

They end in `.golden`, so that DVC, which reads every `dvc.yaml` of a repository, takes none of them for a pipeline.

After a wanted change rewrite them with `UPDATE_GOLDEN=1 python -m pytest tests/test_golden.py` and read the difference in git.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.build.driver import dvc_environment
from engine.core.workspace import Workspace
from engine.dvc import dvcfile
from engine.plan.project import Project
from tests.support.commands import engine

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
PLAN = "plan.txt"
COMPILED = (dvcfile.PIPELINE, dvcfile.PARAMS)
GOLDEN_FILES = tuple(f"{name}.golden" for name in COMPILED)
UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))


def workspace_of(case: str, folder: Path) -> Path:
    """A copy of the case without its golden files, in a folder whose path no output may show."""
    root = folder / "workspace"
    shutil.copytree(GOLDEN / case, root, ignore=shutil.ignore_patterns(*GOLDEN_FILES, PLAN))
    return root


def compiled(root: Path) -> dict[str, str]:
    return Project(Workspace.at(root)).compiled


def plan_output(root: Path) -> str:
    """What `engine plan` writes to a pipe in a compiled workspace in which nothing was built."""
    Project(Workspace.at(root)).write_compiled()
    done = engine(root.parent, "--workspace", str(root), "plan")
    assert (done.returncode, done.stderr) == (2, ""), done.stderr
    return done.stdout


def plan_output_of_a_process(root: Path) -> str:
    command = [sys.executable, "-m", "engine", "--workspace", str(root), "plan"]
    done = subprocess.run(command, env=dvc_environment() | {"PYTHONUTF8": "1"}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (2, b""), done.stderr.decode()
    return done.stdout.decode("utf-8")


def compare(path: Path, text: str) -> None:
    """Compare TEXT with a golden file, byte by byte; or write the file where the user asks for it."""
    if UPDATE:
        path.write_bytes(text.encode("utf-8"))
    golden = path.read_bytes().decode("utf-8")
    assert text == golden, f"{path.relative_to(GOLDEN)} is another; where that is wanted: UPDATE_GOLDEN=1 (see {Path(__file__).name})"


def test_there_are_cases():
    assert len(CASES) >= 3


def test_dvc_finds_no_pipeline_but_that_of_the_repository():
    """`dvc status`, `dvc pull`, `dvc dag` and `dvc metrics show` concern its own stages only."""
    root = Path(__file__).parent.parent
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    files = [name for name in listed if (root / name).is_file()]
    assert [name for name in files if Path(name).name in ("dvc.yaml", "dvc.lock") or name.endswith(".dvc")] == ["dvc.lock", "dvc.yaml"]


@pytest.mark.parametrize("case", CASES)
def test_specs_compile_to_the_golden_files(case: str, tmp_path: Path):
    texts = compiled(workspace_of(case, tmp_path))
    assert set(texts) == set(COMPILED)
    for name, text in texts.items():
        compare(GOLDEN / case / f"{name}.golden", text)


@pytest.mark.parametrize("case", CASES)
def test_plan_prints_the_golden_text(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A continuous integration may ask all programs for colour.
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    root = workspace_of(case, tmp_path)
    text = plan_output(root)
    if case == CASES[0]:
        assert plan_output_of_a_process(root) == text
    assert "\x1b" not in text and str(tmp_path) not in text
    compare(GOLDEN / case / PLAN, text)


@pytest.mark.parametrize("case", CASES)
def test_the_pipeline_holds_every_step_and_no_value(case: str, tmp_path: Path):
    project = Project(Workspace.at(workspace_of(case, tmp_path)))
    pipeline = yaml.safe_load(project.compiled[dvcfile.PIPELINE])
    assert next(iter(pipeline["stages"])) == dvcfile.RESOLVE
    assert set(pipeline["stages"]) == {dvcfile.RESOLVE, *(step.name for step in project.graph)}
    assert set(yaml.safe_load(project.compiled[dvcfile.PARAMS])) == {step.name for step in project.graph}
    allowed = {"desc", "cmd", "deps", "outs", "metrics", "plots", "always_changed"}
    assert {key for stage in pipeline["stages"].values() for key in stage} <= allowed


# Edits that mean nothing


def spec_files(root: Path) -> list[Path]:
    return sorted((root / "specs").rglob("*.toml"))


def commented(text: str) -> str:
    """TEXT with comments, blank lines, indentation, and spaces at the ends of lines that are outside of multi-line values."""
    lines = []
    for line in text.splitlines():
        whole = line.startswith("[") or (" = " in line and not line.startswith(" ") and not line.endswith("["))
        lines += ["# a word", "", f"  {line}   # another word  "] if whole else [line]
    return "\n".join(["# nothing", *lines, "", "# the end"]) + "\n"


def with_crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


def rewritten(text: str) -> str:
    """The same values in the plainest notation: every section one inline table."""
    return dumped(tomllib.loads(text), lambda keys: keys)


@pytest.mark.parametrize("edit", [commented, with_crlf, rewritten], ids=lambda edit: edit.__name__)
@pytest.mark.parametrize("case", CASES)
def test_edits_of_notation_leave_the_compiled_files_alone(case: str, edit: Any, tmp_path: Path):
    root = workspace_of(case, tmp_path)
    before = compiled(root)
    for path in spec_files(root):
        old = path.read_text("utf-8")
        new = edit(old)
        assert new != old and tomllib.loads(new) == tomllib.loads(old), "the edit is real, and means nothing"
        path.write_bytes(new.encode("utf-8"))
    assert compiled(root) == before


def dumped(document: dict[str, Any], order: Any) -> str:
    """DOCUMENT as TOML, the keys of each table as ORDER puts them; JSON's strings are TOML's basic strings."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{ " + ", ".join(f"{json.dumps(key)} = {value(item[key])}" for key in order(list(item))) + " }"
        if isinstance(item, list):
            return "[" + ", ".join(value(each) for each in item) + "]"
        return json.dumps(item, ensure_ascii=False)

    return "".join(f"{json.dumps(key)} = {value(document[key])}\n" for key in order(list(document)))


def reorder(root: Path, case: str, order: Any) -> None:
    for path in spec_files(root):
        original = GOLDEN / case / path.relative_to(root)
        text = dumped(tomllib.loads(original.read_text("utf-8")), order)
        assert tomllib.loads(text) == tomllib.loads(original.read_text("utf-8"))
        path.write_text(text, "utf-8")


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_order_of_keys_leaves_the_compiled_files_alone(case: str, tmp_path: Path, data: st.DataObject):
    root = tmp_path / "workspace"
    if not root.exists():
        workspace_of(case, tmp_path)
    reorder(root, case, lambda keys: data.draw(st.permutations(keys)))
    assert compiled(root) == {name: (GOLDEN / case / f"{name}.golden").read_bytes().decode("utf-8") for name in COMPILED}


# Added specs

MORE = """\
extends = ["parts/adapter.toml"]

[experiment]
name = "{name}"

[mixture]
tasks = {tasks}
"""


def is_subsequence(lines: list[str], of: list[str]) -> bool:
    rest = iter(of)
    return all(line in rest for line in lines)


SHARING = [["topic"], ["headline", "topic"], ["headline"]]


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        *(("alone", tasks) for tasks in SHARING),
        *((name, tasks) for name in ("more", "zeal") for tasks in SHARING),
        *((name, ["prose"]) for name in ("alone", "more", "zeal")),
    ],
)
def test_an_added_spec_only_adds_lines(name: str, tasks: list[str], tmp_path: Path):
    """Before, between and after the specs that are there; `prose` brings a step that none of them has."""
    root = workspace_of("shared-base", tmp_path)
    before = compiled(root)
    text = MORE.format(name=name, tasks=json.dumps(tasks))
    if tasks == ["prose"]:
        text += '\n[tokenization]\nname = "own"\n'
    (root / f"specs/{name}.toml").write_text(text, "utf-8")
    after = compiled(root)
    for file in COMPILED:
        assert is_subsequence(before[file].splitlines(), after[file].splitlines()), f"{file} has lost or moved lines"
    stages, more = (yaml.safe_load(texts[dvcfile.PIPELINE])["stages"] for texts in (before, after))
    assert {name: more[name] for name in stages} == stages
    assert {f"mix-{name}", f"train-{name}", f"predict-{name}", f"evaluate-{name}"} <= set(more) - set(stages)
