"""DVC's own commands in a built workspace: short tables without warnings, and nothing that a cache has is computed again."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml

from tests.end_to_end.conftest import ROOT, Place

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs/how-to/dvc.md"
WIDEST = 120
HEADLINES = ("eos_rate", "exact_match", "validation_loss")


def measured(place: Place, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place.root / f"metrics/{name}.json").read_text("utf-8"))
    return found


def shown(place: Place, *command: str) -> str:
    """What a command prints; asserts that it warns of nothing."""
    done = place.run(*command)
    assert not done.stderr.strip(), done.stderr
    assert not re.search("warn|fail|error", done.stdout, re.IGNORECASE), done.stdout
    return done.stdout


def row(place: Place, experiment: str) -> dict[str, float]:
    """The headline numbers of an experiment, computed from the facts of its evaluation and its training."""
    tasks = measured(place, f"evaluate-{experiment}").values()
    found = {name: fmean(task[name] for task in tasks) for name in HEADLINES[:-1]}
    return found | {HEADLINES[-1]: fmean(measured(place, f"train-{experiment}")["validation_loss"].values())}


def commands() -> Iterator[tuple[str, ...]]:
    """The commands of the page, in its order; its experiment is called `topic`."""
    for line in PAGE.read_text("utf-8").splitlines():
        if found := re.match(r"    (?:\$ )?(dvc .+)", line):
            yield tuple(shlex.split(found[1].replace("topic", "two"), comments=True))


@pytest.fixture(scope="module")
def edited_once(built: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The built workspace with a commit after an edit of a learning rate, built by DVC: not to be changed."""
    place = built.copy_to(tmp_path_factory.mktemp("edited") / "workspace")
    (place.root / "finished").unlink()
    place.edit("specs/two.toml", "[mixture]", "[training]\nlearning_rate = 0.01\n\n[mixture]")
    assert {name for name, action in place.repro().items() if action == "run"} >= {"train-two", "score-two"}
    place.commit("another learning rate")
    return place


@pytest.fixture
def edited(edited_once: Place, tmp_path: Path) -> Place:
    """A copy of the edited workspace."""
    return edited_once.copy_to(tmp_path / "workspace")


def test_every_experiment_has_one_row_of_headline_numbers_that_fits_a_terminal(place: Place):
    table = shown(place, "dvc", "metrics", "show").splitlines()
    assert max(map(len, table)) <= WIDEST and table[0].split() == ["Path", *HEADLINES]
    found = {line.split()[0]: [float(value) for value in line.split()[1:]] for line in table[1:]}
    for experiment in ("one", "two"):
        expected = row(place, experiment)
        assert measured(place, f"experiments/{experiment}") == pytest.approx(expected, abs=1e-6)
        assert found.pop(f"metrics/experiments/{experiment}.json") == pytest.approx([expected[name] for name in HEADLINES], abs=1e-5)
    assert not found


def test_an_experiment_that_is_not_built_costs_no_warning(place: Place):
    place.write("specs/three.toml", (place.root / "specs/two.toml").read_text().replace('"two"', '"three"'))
    place.run("engine", "compile")
    assert len(shown(place, "dvc", "metrics", "show").splitlines()) == 3
    (place.root / "specs/three.toml").unlink()
    (place.root / "specs/one.toml").unlink()
    place.run("engine", "compile")
    place.run("engine", "resolve")
    assert [line.split()[0] for line in shown(place, "dvc", "metrics", "show").splitlines()] == ["Path", "metrics/experiments/two.json"]


def test_the_commands_of_the_page_print_what_an_edit_changed_and_no_warning(edited: Place):
    place = edited
    place.run("dvc", "remote", "add", "--default", "far", str(place.root.parent / "remote"))
    told = {command: place.run(*command) for command in commands()}
    assert {command[1] for command in told} >= {"metrics", "params", "plots", "exp", "dag", "repro", "push", "pull"}
    for command, done in told.items():
        # To their log, `push` and `pull` say how far they are.
        assert not done.stderr.strip() or command[1] in ("push", "pull"), (command, done.stderr)
        assert not re.search("warn|fail|error", done.stdout + done.stderr, re.IGNORECASE), (command, done.stdout + done.stderr)
    metrics = told["dvc", "metrics", "diff", "HEAD~1"].stdout.splitlines()
    assert [line.split()[:2] for line in metrics[1:]] == [["metrics/experiments/two.json", "validation_loss"]]
    assert max(map(len, metrics)) <= WIDEST
    assert not told["dvc", "metrics", "diff"].stdout.strip(), "nothing has changed since the commit"
    (param,) = told["dvc", "params", "diff", "HEAD~1"].stdout.splitlines()[1:]
    assert param.split() == ["params.yaml", "train-two.learning_rate", "0.001", "0.01"]
    assert (place.root / "dvc_plots/index.html").is_file()
    (facts,) = (done.stdout for command, done in told.items() if command[-1] == "metrics/evaluate-two.json")
    assert "b.exact_match" in facts
    drawn = told["dvc", "dag", "score-two"].stdout
    assert all(f"| {name} |" in drawn for name in ("resolve", "train-two", "score-two")) and "score-one" not in drawn
    arrows = re.findall(r"node(\d+)-->", told["dvc", "dag", "--mermaid", "score-two"].stdout)
    assert len(arrows) > 10
    assert "up to date" in told["dvc", "status", "score-two"].stdout


def test_only_steps_that_read_no_other_wait_for_resolve(place: Place):
    edges = re.findall(r'"(\S+)" -> "(\S+)"', place.run("dvc", "dag", "--dot").stdout)
    assert sorted(step for before, step in edges if before == "resolve") == ["generate-a", "generate-b"]


def test_dvc_restores_what_it_has_run_although_the_facts_are_plain_outputs(edited: Place):
    place = edited
    before = measured(place, "experiments/two")
    place.edit("specs/two.toml", "learning_rate = 0.01", "learning_rate = 0.001")
    assert "run" not in place.repro().values()
    assert measured(place, "experiments/two") != before
    place.edit("specs/two.toml", "learning_rate = 0.001", "learning_rate = 0.01")
    assert place.repro_as_planned() == set() and measured(place, "experiments/two") == before


def test_another_clone_builds_nothing_that_the_remote_has(edited: Place, tmp_path: Path):
    edited.run("dvc", "remote", "add", "--default", "far", str(tmp_path / "remote"))
    edited.commit("remote")
    edited.run("dvc", "push")
    table = shown(edited, "dvc", "metrics", "show")
    for name, pull in (("pulled", ["dvc", "pull"]), ("bare", ["dvc", "repro", "--pull"])):
        edited.git("clone", "--quiet", str(edited.root), str(tmp_path / name))
        other = Place(tmp_path / name)
        said = other.run(*pull)
        assert "Running stage 'train" not in said.stdout and "Running stage 'generate" not in said.stdout
        assert "--pull" in pull or set(other.repro().values()) == {"keep"}
        assert set(other.plan().values()) == {"keep"}
        assert shown(other, "dvc", "metrics", "show") == table


def test_a_workspace_whose_facts_were_metrics_of_dvc_keeps_every_step(place: Place):
    pipeline, lock = (yaml.safe_load((place.root / name).read_text()) for name in ("dvc.yaml", "dvc.lock"))
    del pipeline["metrics"]
    for content in (pipeline, lock):
        content["stages"] = {name: stage for name, stage in content["stages"].items() if not name.startswith("score-")}
    for stage in pipeline["stages"].values():
        facts = [out for out in stage["outs"] if isinstance(out, dict)]
        stage |= {"outs": [out for out in stage["outs"] if out not in facts], "metrics": facts}
    place.write("dvc.yaml", yaml.safe_dump(pipeline))
    place.write("dvc.lock", yaml.safe_dump(lock))
    shutil.rmtree(place.root / "metrics/experiments")
    assert place.run("dvc", "status").stdout.split() == ["resolve:", "always", "changed"]
    place.run("engine", "compile", "--force")
    for found in (place.plan(), place.repro()):
        assert {name for name, action in found.items() if action != "keep"} - {"resolve"} == {"score-one", "score-two"}
    now = yaml.safe_load((place.root / "dvc.lock").read_text())
    assert {name: now["stages"][name] for name in lock["stages"]} == lock["stages"]


@pytest.mark.long
def test_experiments_of_dvc_have_headline_numbers_and_the_queue_starts(edited: Place):
    place, key = edited, "specs/two.toml:+evaluation.metrics"
    place.run("dvc", "exp", "run", "--queue", "--name", "queued", "--set-param", f"{key}=[exact_match]", "score-two")
    place.run("dvc", "queue", "start")
    place.run("dvc", "queue", "logs", "queued", "--follow")
    place.run("dvc", "exp", "run", "--name", "again", "--set-param", f"{key}=[eos_rate]", "score-two")
    (_, head) = json.loads(place.run("dvc", "exp", "show", "--json").stdout)
    rows = {experiment["revs"][0]["name"]: experiment["revs"][0]["data"]["metrics"] for experiment in head["experiments"]}
    assert {name: {path: list(found["data"]) for path, found in files.items()} for name, files in rows.items()} == {
        name: {"metrics/experiments/one.json": ["exact_match", "eos_rate", "validation_loss"], "metrics/experiments/two.json": two}
        for name, two in (("queued", ["exact_match", "validation_loss"]), ("again", ["eos_rate", "validation_loss"]))
    }
    assert rows["again"]["metrics/experiments/two.json"]["data"] == measured(place, "experiments/two")
    place.run("dvc", "exp", "apply", "queued")
    assert rows["queued"]["metrics/experiments/two.json"]["data"] == measured(place, "experiments/two")
    assert set(place.repro("score-two").values()) == {"keep"}
