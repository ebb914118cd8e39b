"""A workspace knows its versions: `adapterbuild.lock`, which `engine init` writes, `check` and `plan` read, and `engine lock` moves."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.build.driver import dvc_environment
from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.identity.behaviours import Behaviours, Versions
from engine.identity.environment import LOCK, Environment, find, lock_text, normal, parse_lock
from engine.plan.project import Project
from engine.setup.init import init
from engine.setup.versions import drift, relevant_packages
from tests.support.commands import engine
from tests.support.toys import GOLD, toy

ROOT = Path(__file__).parents[3]
ENTRY = [sys.executable, "-P", str(ROOT / "engine/entry/__main__.py"), "engine"]
ROW = '{"word": "one"}\n{"word": "two"}\n{"word": "three"}\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "workspace"
    (folder / "specs").mkdir(parents=True)
    (folder / "specs/toy.toml").write_text(toy({"a": GOLD}))
    (folder / "a.jsonl").write_text(ROW)
    init(folder)
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "workspace"))


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs another version of a package, as far as anybody asks for its version."""

    def install(name: str, version: str) -> None:
        folder = tmp_path / "releases" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(folder.parent)

    return install


def identities(root: Path) -> dict[str, str]:
    assert engine(root, "compile", "--force").returncode == 0 and engine(root, "resolve").returncode == 0
    return {path.name: path.read_text() for path in (root / "artifacts/identity").glob("*.json")}


def plan(root: Path) -> dict[str, dict]:
    return {step["name"]: step for step in json.loads(engine(root, "plan", "--json").stdout)["steps"]}


def test_init_locks_what_is_installed_of_all_that_matters(root: Path):
    assert {"torch", "numpy", "transformers", "tokenizers", "peft", "bitsandbytes", "sacrebleu", "datasets"} <= set(relevant_packages())
    assert parse_lock(root) == {name: version for name in relevant_packages() if (version := find(name))}
    before = (root / LOCK).read_text()
    assert init(root).files == () and (root / LOCK).read_text() == before, "what is there stays"


def test_init_writes_no_second_lock_beside_that_of_another_tool(tmp_path: Path):
    (tmp_path / "requirements.lock").write_text("torch==2.13.0\n")
    init(tmp_path)
    assert not (tmp_path / LOCK).exists()
    said = engine(tmp_path, "lock")
    assert said.returncode == 1 and "requirements.lock already locks this workspace's versions" in said.stderr


@pytest.mark.parametrize("package", ["transformers", "numpy", "jinja2"])
def test_a_new_release_reruns_nothing_until_the_lock_is_moved(root: Path, release: Callable[[str, str], None], package: str):
    before = identities(root)
    release(package, "99.1.2")
    assert identities(root) == before


def test_check_and_plan_name_package_versions_and_both_ways_out(root: Path, release: Callable[[str, str], None]):
    have = find("torch")
    assert "installed" not in engine(root, "check").stderr + engine(root, "plan").stderr
    release("torch", "99.1.2")
    for verb, status in (("check", 0), ("plan", 2)):
        said = engine(root, verb)
        assert said.returncode == status
        assert f"torch 99.1.2 is installed, but {LOCK} has {have}" in said.stderr
        assert f"pip install torch=={have}" in said.stderr and "engine lock --upgrade" in said.stderr
        line = (root / LOCK).read_text().splitlines().index(f"torch=={have}") + 1
        assert f"{LOCK}:{line}:1" in said.stderr


def test_a_release_of_a_package_that_no_step_names_is_no_matter(root: Path, release: Callable[[str, str], None]):
    release("sacrebleu", "99.0")
    assert "sacrebleu" not in engine(root, "check").stderr


def test_a_release_that_is_known_to_leave_the_same_bytes_is_no_matter(root: Path, release: Callable[[str, str], None]):
    release("torch", "99.1.2")
    assert len(drift(Project(Workspace(root)))) == 1
    project, known = Project(Workspace(root)), Behaviours.of(ROOT)
    packages = {**known.versions[0].packages, "torch": "99.1.2"}
    project.__dict__["behaviours"] = replace(known, versions=(*known.versions, Versions(packages, 0, tuple(known.units))))
    assert drift(project) == []


@pytest.mark.slow
def test_moving_the_lock_says_what_reruns_and_the_plan_then_says_why(root: Path, release: Callable[[str, str], None]):
    done = subprocess.run([*ENTRY, "build", "split-a"], cwd=root, env=dvc_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    have = find("jinja2")
    release("jinja2", "99.1.2")
    assert plan(root)["generate-a"]["action"] == "keep"
    said = json.loads(engine(root, "lock", "--json").stdout)
    assert said["moved"] == [] and said["behind"] == [{"package": "jinja2", "locked": have, "installed": "99.1.2"}]
    moved = json.loads(engine(root, "lock", "--upgrade", "--json").stdout)
    assert (moved["file"], moved["moved"]) == (LOCK, [{"package": "jinja2", "old": have, "new": "99.1.2"}])
    assert {step["name"]: step["action"] for step in moved["steps"]} == {"generate-a": "run", "split-a": "maybe"}
    (reason,) = plan(root)["generate-a"]["reasons"]
    assert (reason["cause"], reason["subject"], reason["old"], reason["new"]) == ("environment", "jinja2", have, "99.1.2")
    assert ": nothing reruns" in engine(root, "lock", "--upgrade").stderr


def test_the_lock_is_not_moved_where_the_specs_have_mistakes(root: Path, release: Callable[[str, str], None]):
    before = (root / LOCK).read_text()
    (root / "specs/toy.toml").write_text("[experimen]\n")
    release("torch", "99.1.2")
    assert engine(root, "lock", "--upgrade").returncode == 1 and (root / LOCK).read_text() == before


def test_a_package_that_was_installed_later_is_added_and_nothing_else_moves(root: Path, release: Callable[[str, str], None]):
    pins = parse_lock(root)
    wanted = pins.pop("tokenizers")
    (root / LOCK).write_text(lock_text(pins))
    assert f"{LOCK} does not lock tokenizers" in engine(root, "check").stderr
    release("torch", "99.1.2")
    assert "tokenizers  " + wanted in engine(root, "lock").stdout
    assert parse_lock(root) == {**pins, "tokenizers": wanted}


@pytest.mark.parametrize("line", ["torch>=2.0", "<<<<<<< HEAD", "torch==2.0 ; python_version > '3'", "numpy==1.0\nNumPy==2.0"])
def test_a_damaged_lock_is_located_and_written_anew_on_demand(root: Path, line: str):
    (root / LOCK).write_text(f"# mine\n{line}\n")
    said = engine(root, "check")
    assert said.returncode == 1 and f"{LOCK}:{line.count(chr(10)) + 2}:1" in said.stderr and "Traceback" not in said.stderr
    assert engine(root, "lock", "--upgrade").returncode == 0
    assert engine(root, "check").returncode == 0


def test_the_own_lock_counts_before_that_of_another_tool(tmp_path: Path):
    (tmp_path / "requirements.lock").write_text("torch==1.0\nnumpy==1.0\n")
    (tmp_path / LOCK).write_text("torch==2.0+cu130\n")
    environment = Environment(tmp_path)
    assert (environment.version("torch"), environment.version("numpy")) == ("2.0", "1.0")


names = st.from_regex(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)?", fullmatch=True)
versions = st.from_regex(r"[0-9]+(\.[0-9]+){0,3}((rc|\.post|\.dev)[0-9]+)?", fullmatch=True)


@settings(max_examples=30)
@given(st.dictionaries(names, versions, max_size=8).filter(lambda pins: len({normal(name) for name in pins}) == len(pins)))
def test_what_is_locked_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, pins: dict[str, str]):
    root = tmp_path_factory.mktemp("lock")
    (root / LOCK).write_text(lock_text(pins))
    assert parse_lock(root) == pins


@pytest.fixture(scope="module")
def light_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has what `engine` imports, and nothing that steps compute with."""
    place = tmp_path_factory.mktemp("light")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    farm, heavy = place / "packages", {"torch", "transformers", "numpy", "tokenizers", "safetensors", "peft", "datasets", "bitsandbytes"}
    farm.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        package = normal(path.name.partition("-")[0].partition(".")[0])
        if package not in heavy and not path.name.endswith(".pth"):
            (farm / path.name).symlink_to(path)
    site = next(place.glob("lib/python*/site-packages"))
    (site / "packages.pth").write_text(f"{farm}\n")
    return place / "bin/python"


def test_check_and_plan_need_no_torch_where_there_is_a_lock(root: Path, light_python: Path, tmp_path: Path):
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        return subprocess.run([light_python, *ENTRY[1:], *command], cwd=root, env=environment, capture_output=True, text=True, check=False)

    checked, planned = run("check"), run("plan", "--json")
    assert checked.returncode == 0 and "warning" not in checked.stderr, checked.stderr
    assert planned.returncode == 2 and {step["name"] for step in json.loads(planned.stdout)["steps"]} == set(plan(root))
    before = parse_lock(root)
    assert run("lock", "--upgrade").returncode == 0
    assert parse_lock(root) == before, "what is not installed keeps its version"
    (root / LOCK).unlink()
    refused = run("check")
    assert refused.returncode == 1 and "is not installed, and no lock lists it" in refused.stderr
    assert "engine lock" in refused.stderr and "make setup" not in refused.stderr


def test_a_missing_package_of_no_lock_is_told_with_its_way_out(tmp_path: Path):
    with pytest.raises(UserError, match=r"pip install surely-not-there.*engine lock"):
        Environment(tmp_path).version("surely-not-there")
