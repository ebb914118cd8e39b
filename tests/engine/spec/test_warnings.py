"""`engine check` warns of what is allowed in a spec and looks like a mistake, at its line, and refuses nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from engine.build.machine import missing_loggers
from engine.core.errors import Problem
from engine.core.workspace import Workspace
from engine.plan.project import Project
from engine.spec.load import load_specs
from engine.spec.warnings import USUAL_RATES, advice, loggers
from stages.train.methods import Method
from tests.engine.checks.test_model_fit import further, marked, spec
from tests.support.commands import engine


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., list[Problem]]:
    def told(*texts: str) -> list[Problem]:
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.toml").write_text(text)
        return advice(load_specs([tmp_path / f"{number}.toml" for number in range(len(texts))], tmp_path))

    return told


ADAPTERS = sorted(set(USUAL_RATES) - {"full"})


def test_every_method_has_a_usual_range():
    kinds = {member.model_fields["kind"].default for member in get_args(get_args(Method)[0])}
    assert set(USUAL_RATES) == kinds and all(0 < low < high for low, high in USUAL_RATES.values())


@pytest.mark.parametrize("method", ADAPTERS)
def test_an_adapter_on_random_weights_is_told(told, method):
    (warning,) = told(spec(f'"{method}"') + "learning_rate = 1e-3\n")
    assert warning.severity == "warning" and "frozen weights stay random" in warning.what and method in warning.what
    assert marked(warning) == f'"{method}"' and "model.experiment" in warning.hint


@pytest.mark.parametrize("method", ADAPTERS)
def test_an_adapter_on_what_another_experiment_trained_is_no_mistake(told, method):
    assert told(spec('"full"'), further(f'"{method}"') + "learning_rate = 1e-3\n") == []


def test_a_model_from_scratch_that_is_trained_in_full_is_no_mistake(told):
    assert told(spec('"full"')) == []


@pytest.mark.parametrize("method", sorted(USUAL_RATES))
@pytest.mark.parametrize(("factor", "word"), [(1.5, "above"), (1, None), (0.5, "below")])
def test_a_learning_rate_outside_of_the_usual_range_of_its_method_is_told(told, method, factor, word):
    low, high = USUAL_RATES[method]
    rate = low * factor if factor < 1 else high * factor
    found = told(spec('"full"'), further(f'"{method}"') + f"learning_rate = {rate!r}\n")
    assert [marked(warning) for warning in found] == ([repr(rate)] if word else [])
    if word:
        assert word in found[0].what and f"usual range for {method}: {low:g} to {high:g}" == found[0].hint


@pytest.mark.parametrize("method", sorted(USUAL_RATES))
def test_a_rate_that_is_not_set_is_told_where_the_default_is_made_for_another_method(told, method):
    found = told(spec('"full"'), further(f'"{method}"'))
    if method in ("lora", "qlora"):
        assert found == []
    else:
        (warning,) = found
        assert "is meant for LoRA" in warning.what and marked(warning) == f'"{method}"' and "start with" in warning.hint


def test_code_of_models_without_isolation_is_told(told):
    def metrics(isolation: str) -> str:
        return f'\n[evaluation]\nmetrics = ["exact_match", {{ kind = "unit_tests", isolation = {isolation} }}]\n'

    (warning,) = told(spec('"full"') + metrics('"limits"'))
    assert "rights and network" in warning.what and marked(warning) == '"limits"' and "bubblewrap" in warning.hint
    assert told(spec('"full"') + metrics('"bubblewrap"')) == []


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ("", 'set "toy" in evaluation.compare'),
        ('compare = ["toy"]', None),
        ('compare = ["base"]', None),
        ('compare = ["base"]\nmetrics = ["exact_match", "length"]', 'set "eos_rate" in evaluation.metrics'),
        ('metrics = ["eos_rate"]', 'set "toy" in evaluation.compare and "length" in evaluation.metrics'),
    ],
)
def test_learning_from_pairs_without_a_look_at_lengths_is_told(told, more, hint):
    objective = 'learning_rate = 1e-4\nobjective = "dpo"\n\n[evaluation]\n'
    found = told(spec('"full"'), further('"lora"') + objective + more)
    assert [warning.hint for warning in found] == ([hint] if hint else [])
    if hint:
        assert marked(found[0]) == '"dpo"' and "run away" in found[0].what
    assert told(spec('"full"') + 'objective = "orpo"\n') == []


def test_a_learning_rate_of_three_is_told(told):
    (warning,) = told(spec('"full"') + "learning_rate = 3\n")
    assert str(warning).startswith("warning: learning_rate = 3 is far above the usual range\n")


def test_points_of_a_sweep_say_it_once_each_value(told):
    text = spec('"full"') + "\n[sweep.grid]\ntraining.learning_rate = [1e-3, 3.0, 5.0]\nexperiment.seed = [1, 2]\n"
    assert [marked(warning) for warning in told(text)] == ["3.0", "5.0"]


def test_check_prints_warnings_and_succeeds_and_a_remembered_workspace_does_so_again(tmp_path, monkeypatch):
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/toy.toml").write_text(spec('"lora"') + '\n[resources]\nreport_to = ["wandb", "tensorboard"]\n')
    first = engine(tmp_path, "check")
    assert first.returncode == 0 and "warning: lora trains an adapter on a model from scratch" in first.stderr
    assert "--> specs/toy.toml:18:10" in first.stderr and "1 spec OK" in first.stderr
    assert "report_to names wandb, but the package wandb is not installed" in first.stderr and "pip install wandb" in first.stderr
    before = Project(Workspace.at(tmp_path))._compiled_outline()
    monkeypatch.setattr("engine.plan.compiled_memo._STARTED", 2**63)
    project = Project(Workspace.at(tmp_path))
    project._compiled_outline()
    monkeypatch.setattr(Project, "_compiled_outline", lambda self: pytest.fail("compiled again"))
    recalled = Project(Workspace.at(tmp_path)).outline
    assert (recalled.warnings, recalled.loggers) == (before.warnings, before.loggers) and recalled.warnings and recalled.loggers
    assert engine(tmp_path, "check").stderr == first.stderr


def test_a_logger_that_is_installed_is_not_told(told, tmp_path, monkeypatch):
    (tmp_path / "0.toml").write_text(spec('"full"') + '\n[resources]\nreport_to = ["wandb"]\n')
    named = loggers(load_specs([tmp_path / "0.toml"], tmp_path))
    assert [problem.where for problem in missing_loggers(named)] == [named["wandb"]]
    (tmp_path / "wandb.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert missing_loggers(named) == []


def test_a_build_refuses_a_logger_that_is_not_installed_before_any_step(tmp_path):
    assert engine(tmp_path, "init", "ws").returncode == 0
    for file in (tmp_path / "ws/specs").glob("*.toml"):
        file.unlink()
    (tmp_path / "ws/specs/toy.toml").write_text(spec('"full"') + '\n[resources]\nreport_to = ["wandb"]\n')
    done = engine(tmp_path / "ws", "build")
    assert done.returncode == 1 and "error: resources.report_to names wandb" in done.stderr
    assert not (tmp_path / "ws/artifacts/generate-topic").exists()


def test_a_new_workspace_keeps_reports_and_what_loggers_write_out_of_git(tmp_path):
    assert engine(tmp_path, "init", "ws").returncode == 0
    assert {"/report/", "/.adapterbuild/"} <= set((tmp_path / "ws/.gitignore").read_text().splitlines())
