"""The plan against real builds after random edits, and the comparison against what it must notice."""

import json
import random
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.plan_truth import Session, measure
from benchmarks.truth_edits import EDITS
from benchmarks.truth_oracle import Oracle, Result, compare
from benchmarks.truth_world import BEHAVIOURS, KIND_MODULES, ROOT, World

COURSES = [(0, 10), *(pytest.param(*course, marks=pytest.mark.long) for course in ((1, 30), (2, 30)))]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "edits"), COURSES)
def test_the_plan_is_true_after_random_edits(seed: int, edits: int):
    counts, problems = measure(seed, edits)
    assert not problems
    assert counts["edits"] == edits and counts["steps"] > 2 * edits
    assert counts["disagreements"] == counts["stale"] == counts["needless"] == 0


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A random DAG, built once with `engine build`."""
    root = tmp_path_factory.mktemp("truth") / "workspace"
    root.mkdir()
    session = Session(root, random.Random(0), "engine")
    session.go(0)
    assert not session.problems
    return session


def kept(session: Session) -> dict[str, str]:
    return dict.fromkeys(session.world.truths(), "keep")


@pytest.mark.slow
def test_an_untouched_workspace_has_no_problem(session: Session):
    oracle = session.oracle
    assert session.place.build(session.world.targets, list(kept(session))) == kept(session)
    assert oracle.judge(session.world, kept(session), oracle.before()) == ([], [])


@pytest.mark.slow
def test_a_result_that_is_not_the_recorded_one_is_stale(session: Session, monkeypatch: pytest.MonkeyPatch):
    oracle, step = session.oracle, session.world.targets[0]
    key = oracle.keys(session.world)[step]
    monkeypatch.setitem(oracle.results, key, Result("0" * 64, oracle.results[key].objects))
    stale, needless = oracle.judge(session.world, kept(session), oracle.before())
    assert len(stale) == 1 and stale[0].startswith(f"{step} (keep)") and needless == []


@pytest.mark.slow
def test_an_input_that_was_never_built_from_is_stale_where_the_step_is_kept(session: Session, monkeypatch: pytest.MonkeyPatch):
    oracle, step = session.oracle, session.world.targets[0]
    monkeypatch.delitem(oracle.results, oracle.keys(session.world)[step])
    stale, _ = oracle.judge(session.world, kept(session), oracle.before())
    assert stale == [f"{step} was not run (keep), and was never built from these inputs"]


@pytest.mark.slow
def test_a_step_that_ran_again_is_needless(session: Session):
    oracle, step = session.oracle, session.world.targets[0]
    stale, needless = oracle.judge(session.world, kept(session) | {step: "run"}, oracle.before())
    assert stale == [] and needless == [f"{step} ran, although the result was there"]


@pytest.mark.slow
def test_a_result_whose_objects_are_gone_may_be_made_again(session: Session, monkeypatch: pytest.MonkeyPatch):
    oracle, step = session.oracle, session.world.targets[0]
    key = oracle.keys(session.world)[step]
    monkeypatch.setitem(oracle.results, key, Result(oracle.results[key].content, ("00" + "0" * 30,)))
    assert not oracle.obtainable(step, key)
    assert oracle.judge(session.world, kept(session) | {step: "run"}, oracle.before()) == ([], [])


@pytest.mark.parametrize("planned", ["keep", "restore", "run"])
@pytest.mark.parametrize("done", ["keep", "restore", "run"])
def test_a_wrong_decision_is_one_disagreement(planned: str, done: str):
    wrong = compare({"a": planned, "b": "keep"}, {"a": done, "b": "keep"}, {"a": True, "b": True})
    assert len(wrong) == (planned != done)


@pytest.mark.parametrize(
    ("done", "same", "wrong"),
    [("keep", True, 0), ("restore", True, 0), ("run", True, 1), ("keep", False, 1), ("run", False, 0), ("restore", False, 0)],
)
def test_maybe_is_settled_by_the_inputs(done: str, same: bool, wrong: int):
    assert len(compare({"a": "maybe"}, {"a": done}, {"a": same})) == wrong


def test_a_step_that_the_build_says_nothing_of_is_a_disagreement():
    assert compare({"a": "keep"}, {}, {"a": True}) == ["a was planned keep and was nothing"]


def test_keys_follow_bytes_values_and_behaviour_and_nothing_else(tmp_path: Path):
    world = World.drawn(random.Random(1))
    world.write(tmp_path)
    oracle, task = Oracle(tmp_path), next(iter(world.specs.values())).tasks[0]
    first, step = oracle.keys(world), f"generate-{task}"
    world.comments["stages/generate/body.py"] = 1
    world.threads, world.learning_rate, world.members = 3, "2e-3", 1
    world.write(tmp_path)
    assert oracle.keys(world) == first
    world.behaviours["stages/generate/teachers/gold.py"] = 1
    second = oracle.keys(world)
    assert {name for name in first if first[name] != second[name]} == {name for name in first if name.startswith("generate-")}
    world.tasks[task].rows[0]["extra"] = float(world.tasks[task].rows[0]["extra"])
    world.write(tmp_path)
    third = oracle.keys(world)
    assert {name for name in second if second[name] != third[name]} == {step}


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_gives_files_that_are_well_formed(name: str):
    draw, world = random.Random(name), World.drawn(random.Random(2))
    before = dict(world.files())
    assert any(EDITS[name](world, draw) and dict(world.files()) != before for _ in range(20)), f"{name} edits nothing"
    for path, text in world.files():
        if path.endswith(".toml"):
            tomllib.loads(text)
        elif path.endswith(".py"):
            compile(text, path, "exec")
        elif path.endswith(".jsonl"):
            assert all("word" in json.loads(line) for line in text.splitlines())


def test_the_modules_that_are_edited_are_those_of_this_repository():
    for path in {*BEHAVIOURS, *(module for modules in KIND_MODULES.values() for module in modules)}:
        assert (ROOT / path).is_file(), path


@pytest.mark.slow
@pytest.mark.long
def test_the_last_line_is_the_count():
    command = [sys.executable, str(ROOT / "benchmarks/plan_truth.py"), "--seed", "7", "--edits", "2", "--builder", "dvc", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    counted = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and list(counted) == ["edits", "steps", "disagreements", "stale", "needless"]
    assert counted["edits"] == 2 and counted["steps"] > 4


# The tests below change the shared workspace, and leave it built.


@pytest.mark.slow
def test_a_table_that_is_new_in_a_recipe(session: Session):
    spec = next(iter(session.world.specs.values()))
    weights = ", ".join(f"{task} = 2" for task in spec.tasks)
    for spec.sampler in ('"equal"', f'{{ kind = "weights", weights = {{ {weights} }} }}'):
        session.world.write(session.root)
        session._plan_and_build("sampler", "engine")
    assert session.problems == []
