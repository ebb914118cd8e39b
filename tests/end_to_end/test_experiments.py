"""`dvc exp run -S` on a spec: in the workspace, aside, and queued; exactly what the key concerns runs, and `dvc exp show` shows it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Place, actions
from tests.end_to_end.light import TARGETS

pytestmark = pytest.mark.slow

SEED = "specs/two.toml:experiment.seed=5"
"""Concerns the order of the rows of two's mixture alone."""
PROMPT = "specs/parts/common.toml:tasks.a.seed=7"
"""Concerns the rows of a, which both read; those of b are left alone."""


@pytest.fixture(scope="module")
def built_once(light: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The light workspace with its targets built and committed: not to be changed."""
    place = light.copy_to(tmp_path_factory.mktemp("built-light") / "workspace")
    place.run("engine", "build", *TARGETS, check=False)
    place.commit("built")
    return place


@pytest.fixture
def built_light(built_once: Place, tmp_path: Path) -> Place:
    """A copy of the built light workspace."""
    return built_once.copy_to(tmp_path / "workspace")


def experiments(place: Place) -> Iterator[dict[str, Any]]:
    """What `dvc exp show` says of each experiment on the present commit."""
    (_, head) = json.loads(place.run("dvc", "exp", "show", "--json").stdout)
    for experiment in head["experiments"] or ():
        yield experiment["revs"][0] | {"executor": experiment["executor"]}


def ran(output: str) -> set[str]:
    return {name for name, action in actions(output).items() if action == "run"}


def parameters(experiment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = experiment["data"]["params"]["params.yaml"]["data"]
    return found


@pytest.mark.long
def test_in_the_workspace_exactly_what_the_key_concerns_runs_and_the_plan_agrees(built_light: Place):
    place = built_light
    done = place.run("dvc", "exp", "run", "--set-param", SEED, *TARGETS)
    assert ran(done.stdout + done.stderr) == {"resolve", "mix-two"}
    assert "seed = 5" in (place.root / "specs/two.toml").read_text()
    assert [parameters(experiment)["mix-two"]["seed"] for experiment in experiments(place)] == [5]
    assert {place.plan(*TARGETS)[name] for name in ("mix-one", "mix-two", "split-b")} == {"keep"}
    done = place.run("dvc", "exp", "run", "--set-param", SEED.replace("5", "0"), *TARGETS)
    assert ran(done.stdout + done.stderr) <= {"resolve"} and actions(done.stdout)["mix-two"] == "restore"


@pytest.mark.long
def test_aside_the_workspace_stays_as_it_is(built_light: Place):
    place = built_light
    before = {
        path: path.read_bytes() for path in [place.root / "dvc.lock", place.root / "params.yaml", *(place.root / "specs").glob("*.toml")]
    }
    done = place.run("dvc", "exp", "run", "--temp", "--set-param", PROMPT, *TARGETS)
    # With one prompt another seed draws the same: what stands on the rows is kept.
    assert ran(done.stdout + done.stderr) == {"resolve", "generate-a"}
    assert {path: path.read_bytes() for path in before} == before
    (shown,) = experiments(place)
    assert parameters(shown)["generate-a"]["seed"] == 7 and parameters(shown)["generate-b"]["seed"] == 0
    name = shown["name"]
    # It complains of the trainings, which nobody has built, after it has put everything else in its place.
    place.run("dvc", "exp", "apply", name, check=False)
    assert {place.plan(*TARGETS)[step] for step in ("generate-a", "split-a", "tokenize-a-toy", "mix-two")} <= {"keep", "restore"}


@pytest.mark.long
def test_queued_experiments_run_each_with_its_own_value(built_light: Place):
    place = built_light
    place.run("dvc", "exp", "run", "--queue", "--set-param", "specs/two.toml:experiment.seed=11,12", *TARGETS)
    assert len(re.findall("Queued", place.run("dvc", "queue", "status").stdout)) == 2
    done = place.run("dvc", "exp", "run", "--run-all", "--jobs", "1")
    assert done.returncode == 0
    shown = list(experiments(place))
    assert sorted(parameters(experiment)["mix-two"]["seed"] for experiment in shown) == [11, 12]
    assert all(parameters(experiment)["mix-one"]["seed"] == 0 for experiment in shown)
    assert set(place.plan(*TARGETS).values()) == {"keep"}


@pytest.mark.long
def test_a_key_that_adds_steps_is_refused_with_the_sentence_that_says_what_to_run(built_light: Place):
    place = built_light
    done = place.run("dvc", "exp", "run", "--set-param", 'specs/one.toml:mixture.tasks=["a","b"]', *TARGETS, check=False)
    assert done.returncode and "run: engine compile" in done.stdout + done.stderr
    done = place.run("dvc", "exp", "run", "--set-param", "specs/one.toml:+experiment.sead=1", *TARGETS, check=False)
    assert done.returncode and "unknown key 'sead'" in done.stdout + done.stderr
