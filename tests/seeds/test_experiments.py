"""`make experiments`: workspaces that follow their specs and keep what was built, and a table at the end."""

import json

import pytest

from benchmarks import experiments
from benchmarks.experiments import EXPERIMENTS, Built, build, main, rows
from benchmarks.outcomes import OUTCOMES, Outcome, Workspace
from engine.core.workspace import Workspace as Folder
from engine.plan.project import Project
from engine.setup.init import init
from tests.seeds.workspaces import NAMES


def test_every_experiment_has_outcomes():
    assert OUTCOMES.keys() == EXPERIMENTS.keys() and [each.name for each in EXPERIMENTS.values() if not each.real] == NAMES


@pytest.mark.slow
def test_a_workspace_follows_its_specs_and_keeps_what_was_built(tmp_path):
    init(tmp_path)  # the folder of an experiment lies inside the project, a workspace of its own
    folder = tmp_path / "artifacts/experiments/bloom-560m-chat"
    EXPERIMENTS["bloom-560m-chat"].prepare(folder)
    steps = [step.name for step in Project(Folder.at(folder)).graph]
    assert (folder / ".dvc").is_dir() and "train-masked-tiny" in steps
    (folder / "specs/gone.toml").write_text("no spec of ours", "utf-8")
    (folder / "artifacts").mkdir()
    (folder / "artifacts/kept").touch()
    EXPERIMENTS["bloom-560m-chat"].prepare(folder)
    assert not (folder / "specs/gone.toml").exists() and (folder / "artifacts/kept").exists()
    assert [step.name for step in Project(Folder.at(folder)).graph] == steps


def test_without_its_data_an_experiment_is_skipped_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "DATA", tmp_path / "data")
    assert build(EXPERIMENTS["flan-t5-methods"], 1) == Built("flan-t5-methods", f"skipped: mts_dialog in {tmp_path}/data not found")


def test_without_the_real_model_an_experiment_on_it_is_skipped_and_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "REAL_MODEL", tmp_path / "no.gguf")
    monkeypatch.setattr(experiments, "DATA", tmp_path)
    for data in EXPERIMENTS["smollm2"].data:
        (tmp_path / data).mkdir()
    assert build(EXPERIMENTS["smollm2"], 1) == Built("smollm2", "skipped: the real model (make real-model) not found")


@pytest.mark.parametrize(
    ("built", "code"),
    [
        (Built("one", "built", 3.2, 2.0, [Outcome("a claim", "1.00", True)]), 0),
        (Built("one", "built", 3.2, 2.0, [Outcome("a claim", "0.00", False)]), 1),
        (Built("one", "built", 3.2, 2.0, [Outcome("a claim", "0.00", False, needed=False)]), 0),
        (Built("one", "failed (exit code 1)", 3.2, 2.0), 1),
        (Built("one", "skipped: x not in data"), 0),
    ],
)
def test_the_table_and_the_exit_code_say_what_became_of_it(monkeypatch, capsys, built, code):
    monkeypatch.setattr(experiments, "build", lambda name, jobs: built)
    monkeypatch.setattr("sys.argv", ["experiments", NAMES[0], "--json"])
    assert main() == code
    out = capsys.readouterr().out
    assert all(f"| {' | '.join(row)} |" in out for row in rows([built]))
    assert json.loads(out.splitlines()[-1])[0]["state"] == built.state


def test_an_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["experiments", "falcon"])
    with pytest.raises(SystemExit):
        main()
    assert "there is no experiment falcon" in capsys.readouterr().err


def test_lost_rows_and_ends_without_a_label_are_found(tmp_path):
    (tmp_path / "metrics").mkdir()
    fine = {"rows_in": 5, "rows_out": 4, "left_out": {"too long": 1}, "rows_from_splits": 0, "completions": 4}
    for name, counts in {"fine": fine, "lost": fine | {"left_out": {}}, "endless": fine | {"completions": 3}}.items():
        (tmp_path / f"metrics/tokenize-{name}.json").write_text(json.dumps({"train": counts}), "utf-8")
    assert list(Workspace(tmp_path).unaccounted()) == ["tokenize-endless", "tokenize-lost"]
