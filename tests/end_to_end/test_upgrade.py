"""A workspace that the last code of format 1 built, under the code of today: nothing reruns but what is known to leave other bytes."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from engine.identity.behaviours import Behaviours
from tests.end_to_end.conftest import ROOT, Place

pytestmark = pytest.mark.slow

ARCHIVE = Path(__file__).parent / "workspaces/format_1.tar.xz"
"""One experiment (generate, split, initialize, tokenize, mix, train, predict, evaluate) with its cache and `dvc.lock`."""

ALIKE = ("generate-a", "split-a", "initialize-toy")
"""Steps whose kinds have left the same bytes ever since."""


@pytest.fixture
def old(tmp_path: Path) -> Place:
    root = tmp_path / "workspace"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    place = Place(root)
    place.git("init", "--quiet")
    place.commit("built by older code")
    return place


def test_what_leaves_the_same_bytes_is_kept_and_all_else_says_which_revision_changed(old: Place):
    known = Behaviours.of(ROOT)
    done = old.run("engine", "plan", "--json", check=False)
    steps = {step["name"]: step for step in json.loads(done.stdout)["steps"]}
    assert {steps[name]["action"] for name in ALIKE} == {"keep"}
    for step in steps.values():
        if step["action"] == "run" and step["name"] not in ("resolve", "score-one"):  # the older code had no score step
            causes = {reason["cause"] for reason in step["reasons"]}
            assert causes & {"revision", "wiring"} and causes <= {"revision", "wiring", "upstream", "input"}, step
        for reason in step["reasons"]:
            if reason["cause"] == "revision":
                line = known.units[reason["subject"]].changes[str(reason["new"])]
                assert reason["old"] == 1 < reason["new"] and line in reason["text"], "the plan says what has changed"


def test_a_build_takes_the_results_over_and_dvc_agrees_from_then_on(old: Place):
    before = {name: (old.root / "artifacts" / name).stat().st_mtime_ns for name in ALIKE}
    said = old.run("engine", "plan", "--json", "--dvc", *ALIKE, check=False)
    assert {step["action"] for step in json.loads(said.stdout)["steps"]} == {"run"}, "DVC compares texts"
    done = old.run("engine", "build", *ALIKE)
    assert not [line for line in done.stderr.splitlines() if line.startswith("run ")], done.stderr
    assert {name: (old.root / "artifacts" / name).stat().st_mtime_ns for name in ALIKE} == before
    assert set(old.plan(*ALIKE).values()) == {"keep"}
    found = old.repro(*ALIKE)
    assert {found[name] for name in ALIKE} == {"keep"}
    # What is restored is recorded under the current identity too.
    shutil.rmtree(old.root / "artifacts/split-a")
    old.run("engine", "build", *ALIKE)
    assert json.loads(old.run("engine", "verify", "split-a", "--json").stdout)["verified"]
    # What was known of the runs is still known.
    for name in ALIKE:
        ran = json.loads((old.root / f"artifacts/{name}.run.json").read_text())
        assert ran["measured"]["seconds"] > 0 and ran["machine"]["platform"]


def test_a_result_that_is_restored_in_old_words_is_recorded_in_those_of_today(old: Place):
    shutil.rmtree(old.root / "artifacts/split-a")
    assert old.plan(*ALIKE)["split-a"] == "restore"
    old.run("engine", "build", *ALIKE)
    assert set(old.plan(*ALIKE).values()) == {"keep"}
    for name in ALIKE:
        assert json.loads(old.run("engine", "verify", name, "--json").stdout)["verified"]
