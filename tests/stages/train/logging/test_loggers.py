"""Live metrics are written as DVC reads them, outside of what the step leaves; utilisation is the papers' arithmetic."""

import csv
import dataclasses
import subprocess
import sys

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

        def close(self, whole):
            seen.append("closed")

    watched = Live(None, "step", ())
    watched._sinks = [Sink()]
    for step in range(1, 101):
        watched.log(step, {"loss": 1.0}, last=step == 100)
    watched.close()
    assert seen == [1, 100, "closed"]


def test_utilisation_is_six_operations_a_weight_and_token():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert utilization(989e12 / 6 / 1e9, 10**9, 10**9, 1, "NVIDIA H100 80GB HBM3") == pytest.approx(1.0)
    assert utilization(989e12 / 4 / 1e9, 10**9, 0, 1, "NVIDIA H100 80GB HBM3") == pytest.approx(1.0), "a frozen base has no gradients"
    assert utilization(1000.0, 10**9, 10**9, 1, "cpu") is None
