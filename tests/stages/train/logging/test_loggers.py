"""Live metrics are written as DVC reads them, outside of what the step leaves; utilisation is the papers' arithmetic."""

import csv
import dataclasses
import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

from stages.train.body import run
from stages.train.logging import loggers as live
from stages.train.logging.loggers import Live, peak_flops, utilization
from tests.stages.initialize.tiny import contents
from tests.stages.train.tiny import settings, training_job


def test_a_training_leaves_files_that_dvc_plots_shows_and_the_same_outputs(tmp_path, falcon, monkeypatch):
    monkeypatch.setattr(live, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.chdir(tmp_path)
    plain, watched = training_job(tmp_path / "plain", falcon), training_job(tmp_path / "watched", falcon)
    run(settings(), plain)
    run(settings(), dataclasses.replace(watched, live=tmp_path / "live" / "step"))
    assert contents(plain.output) == contents(watched.output)
    folder = tmp_path / "live" / "step" / "plots" / "metrics"
    rows = {path.stem: list(csv.DictReader(path.open(), delimiter="\t")) for path in folder.glob("*.tsv")}
    wanted = {"loss", "learning_rate", "grad_norm", "tokens_per_second", "supervised_tokens_per_second", "memory_bytes"}
    assert wanted <= rows.keys()
    assert [row["step"] for row in rows["loss"]] == ["1", "2", "3", "4"]
    losses = [float(row["loss"]) for row in csv.DictReader(watched.plot.open())]
    assert [float(row["loss"]) for row in rows["loss"]] == pytest.approx(losses, rel=1e-5)


@pytest.mark.slow
def test_dvc_plots_draws_them_in_a_repository_without_a_commit(tmp_path, falcon, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    job = training_job(tmp_path / "job", falcon)
    run(settings(), dataclasses.replace(job, live=tmp_path / "artifacts" / "live" / "step"))
    (tmp_path / ".gitignore").write_text("/artifacts\n")
    command = [sys.executable, "-m", "dvc", "plots", "show", "artifacts/live", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "artifacts/live/step/plots/metrics/loss.tsv" in done.stdout


def test_quick_steps_are_thinned_but_first_and_last_are_there():
    seen = []

    class Sink:
        def log(self, step, values):
            seen.append(step)

        def close(self):
            seen.append("closed")

    watched = Live(None, "step", ())
    watched._sinks = [Sink()]
    for step in range(1, 101):
        watched.log(step, {"loss": 1.0}, last=step == 100)
    watched.close()
    assert seen == [1, 100, "closed"]


def test_utilisation_is_six_operations_a_weight_and_token():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert utilization(989e12 / 6 / 1e9, 10**9, 1, "NVIDIA H100 80GB HBM3") == pytest.approx(1.0)
    assert utilization(1000.0, 10**9, 1, "cpu") is None


class Journal:
    """Stands in for a service's client: notes each call with the arguments that the client's documentation names."""

    def __init__(self, notes, *names):
        for name in names:
            setattr(self, name, lambda *given, name=name, **named: notes.append((name, given, named)))


@pytest.fixture
def services(monkeypatch):
    """Clients of the three services as far as they are called, and what was called."""
    notes = []
    wandb, mlflow, board = (ModuleType(name) for name in ("wandb", "mlflow", "torch.utils.tensorboard"))
    wandb.init = lambda **named: notes.append(("init", (), named)) or Journal(notes, "log", "finish")
    for name in ("start_run", "log_metrics", "end_run"):
        setattr(mlflow, name, getattr(Journal(notes, name), name))
    board.SummaryWriter = lambda folder: notes.append(("open", (folder,), {})) or Journal(notes, "add_scalar", "close")
    for module in (wandb, mlflow, board):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return notes


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("wandb", ["init", "log", "log", "finish"]),
        ("mlflow", ["start_run", "log_metrics", "log_metrics", "end_run"]),
        ("tensorboard", ["open", "add_scalar", "add_scalar", "add_scalar", "add_scalar", "close"]),
    ],
)
def test_live_metrics_go_where_they_were_asked_to_go(tmp_path, services, monkeypatch, name, calls):
    monkeypatch.setattr(live, "_SECONDS_BETWEEN", 0.0)
    watched = Live(tmp_path / "live", "train-toy", (name,))
    for step in (1, 2):
        watched.log(step, {"loss": 1.5 / step, "grad_norm": 0.5}, last=step == 2)
    watched.close()
    assert [call for call, _, _ in services] == calls
    assert "train-toy" in str(services[0]) or str(tmp_path / "live") in str(services[0])
    numbers = [(given, named) for call, given, named in services if call in ("log", "log_metrics", "add_scalar")]
    assert "0.75" in str(numbers) and "2" in str(numbers[-1])


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_really_writes_its_files(tmp_path):
    watched = Live(tmp_path, "train-toy", ("tensorboard",))
    watched.log(1, {"loss": 1.0}, last=True)
    watched.close()
    assert list((tmp_path / "tensorboard").glob("events.*"))
