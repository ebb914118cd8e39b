"""Loggers are told everything and decide nothing: whatever one of them does, the training ends as it would without."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.reporting import report
from stages.train.body import run
from stages.train.logging import loggers as live
from stages.train.logging.loggers import Live
from tests.stages.initialize.tiny import contents
from tests.stages.train.tiny import settings, training_job

SERVICE = """
import json, os, time
from pathlib import Path

def note(*what):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps(what) + "\\n")

class Run:
    id = "run7"
    class config:
        update = staticmethod(lambda values: note("config", values))
    class summary:
        update = staticmethod(lambda values: note("summary", values))
    def log(self, values, step):
        IN_THE_MIDDLE
        note("log", step, values)
    def finish(self, exit_code):
        AT_THE_END
        note("finish", exit_code)

def init(**given):
    AT_THE_START
    note("init", given)
    return Run()
"""
"""A package that has the name and the calls of a service's client, as its documentation has them."""


@pytest.fixture
def service(tmp_path, monkeypatch):
    """Makes that client do something at a place; gives what it was told."""
    notes = tmp_path / "notes"
    notes.touch()
    monkeypatch.setenv("NOTES", str(notes))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "packages"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))

    def make(place: str = "", act: str = ""):
        text = SERVICE.replace(place, act) if place else SERVICE
        for other in ("AT_THE_START", "IN_THE_MIDDLE", "AT_THE_END"):
            text = text.replace(other, "pass")
        (tmp_path / "packages").mkdir(exist_ok=True)
        (tmp_path / "packages/wandb.py").write_text(text)

        def told() -> list:
            return [json.loads(line) for line in notes.read_text().splitlines()]

        return told

    return make


def test_a_service_is_told_recipe_steps_digest_and_evaluation(tmp_path, service, monkeypatch):
    monkeypatch.setattr(live, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.chdir(tmp_path)
    told = service()
    identity = Path("artifacts/identity/train-toy.json")
    identity.parent.mkdir(parents=True)
    identity.write_text(json.dumps({"recipe": {"method": {"kind": "lora", "r": 8}, "seed": 3}}))
    watched = Live(Path("artifacts/live/train-toy"), "train-toy", ("wandb",))
    for step in (1, 2):
        watched.log(step, {"loss": 1.5 / step}, last=step == 2)
    watched.close()
    assert told()[0][0] == "init" and told()[0][1]["name"] == "train-toy"
    wanted = [
        ["config", {"method.kind": "lora", "method.r": 8, "seed": 3}],
        ["log", 1, {"loss": 1.5}],
        ["log", 2, {"loss": 0.75}],
        ["finish", 0],
    ]
    assert told()[1:] == wanted
    report(Path("artifacts/live"), "train-toy", "sha256:12", {"steps": 2, "validation_loss": {"a": 0.5}, "note": "x"})
    assert told()[5][1]["id"] == "run7"
    assert told()[6] == ["summary", {"training/steps": 2.0, "training/validation_loss/a": 0.5, "digest": "sha256:12"}]
    # Of another adapter than the one that was watched, nothing is told.
    count = len(told())
    report(Path("artifacts/live"), "evaluate-toy", "sha256:34", {"a": {"exact_match": 1.0}})
    assert len(told()) == count


FAILURES = {
    "raises at the start": ("AT_THE_START", "raise RuntimeError('no key')", "could not start", "no key"),
    "leaves at the start": ("AT_THE_START", "raise SystemExit(3)", "could not start", "SystemExit"),
    "ends at the start": ("AT_THE_START", "os.kill(os.getpid(), 9)", "ended by signal 9", ""),
    "is broken": ("import json, os, time", "raise ValueError('bad install')", "could not start", "bad install"),
    "raises in the middle": ("IN_THE_MIDDLE", "raise ConnectionError('gone')", "could not take what it is told", "gone"),
    "raises at the end": ("AT_THE_END", "raise OSError('full')", "could not end", "full"),
    "hangs at the start": ("AT_THE_START", "time.sleep(600)", "has not ended after 1 s", ""),
    "hangs in the middle": ("IN_THE_MIDDLE", "time.sleep(600)", "has not ended after 1 s", ""),
    "hangs at the end": ("AT_THE_END", "time.sleep(600)", "has not ended after 1 s", ""),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_logger_that_fails_is_told_once_and_ends_no_training(tmp_path, falcon, service, monkeypatch, capfd, name):
    place, act, *said = FAILURES[name]
    service(place, act)
    monkeypatch.setattr(live, "_SECONDS_BETWEEN", 0.0)
    if name.startswith("hangs"):
        monkeypatch.setattr(live, "_CLOSING_SECONDS", 1.0)
    monkeypatch.chdir(tmp_path)
    plain, watched = training_job(tmp_path / "plain", falcon), training_job(tmp_path / "watched", falcon)
    run(settings(), plain)
    before = time.monotonic()
    run(settings(report_to=("wandb",)), dataclasses.replace(watched, live=tmp_path / "artifacts/live/train-x"))
    assert time.monotonic() - before < 60
    assert contents(plain.output) == contents(watched.output) and plain.plot.read_bytes() == watched.plot.read_bytes()
    errors = capfd.readouterr().err
    assert errors.count("warning: wandb") == 1 and all(words in errors for words in said) and "report_to" in errors, errors
    assert "Traceback" not in errors


def test_more_numbers_than_a_logger_takes_hold_nothing_up(tmp_path, service, monkeypatch):
    service("AT_THE_START", "time.sleep(600)")
    monkeypatch.setattr(live, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(live, "_MOST_UNSENT", 100_000)
    monkeypatch.setattr(live, "_CLOSING_SECONDS", 0.5)
    watched = Live(tmp_path / "live/train-x", "train-x", ("wandb",))
    watched._sinks = watched._sinks[1:]
    before = time.monotonic()
    for step in range(20_000):
        watched.log(step, {"loss": 1.0}, last=False)
    watched.close()
    assert time.monotonic() - before < 20 and len(watched._sinks[0]._unsent) <= 110_000


def test_a_full_disk_under_the_live_files_ends_no_training(tmp_path, falcon, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/live").write_text("a file where a folder is needed")
    run(settings(), dataclasses.replace(training_job(tmp_path / "job", falcon), live=tmp_path / "artifacts/live/train-x"))
    assert capfd.readouterr().err.count("warning: live metrics could not start") == 1


def test_a_package_that_is_missing_is_refused_before_the_training():
    from engine.core.errors import UserError

    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    with pytest.raises(UserError, match="wandb, which is not installed") as caught:
        live.refuse_missing(("wandb",))
    assert "pip install wandb" in caught.value.problems[0].hint


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_really_writes_its_files(tmp_path):
    watched = Live(tmp_path / "live/train-toy", "train-toy", ("tensorboard",))
    watched.log(1, {"loss": 1.0}, last=True)
    watched.close()
    assert list((tmp_path / "live/train-toy/tensorboard").glob("events.*"))


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed (pip install mlflow-skinny)")
@pytest.mark.parametrize("store", [None, "named", "unreachable"])
def test_mlflow_itself_takes_everything_without_being_set_up(tmp_path, falcon, monkeypatch, capfd, store):
    """In a folder of the workspace where nothing is named, in a folder that is, and not at all where a server does not answer."""
    monkeypatch.setattr(live, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    runs = tmp_path / ".adapterbuild/mlruns"
    if store == "named":
        runs = tmp_path / "elsewhere"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", runs.as_uri())
    elif store == "unreachable":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setattr(live, "_CLOSING_SECONDS", 3.0)
    elif importlib.util.find_spec("sqlalchemy"):
        pytest.skip("MLflow has a database here, and takes that")
    identity = tmp_path / "artifacts/identity/train-x.json"
    identity.parent.mkdir(parents=True)
    identity.write_text(json.dumps({"recipe": {"method": {"kind": "full"}, "betas": [0.9, 0.999]}}))
    live_folder = tmp_path / "artifacts/live/train-x"
    job = dataclasses.replace(training_job(tmp_path / "job", falcon), name="train-x", live=live_folder)
    run(settings(report_to=("mlflow",)), job)
    assert contents(job.output)
    errors = capfd.readouterr().err
    if store == "unreachable":
        assert errors.count("warning: mlflow") == 1
        return
    assert "warning" not in errors
    if store is None:
        subprocess.run(["git", "init", "--quiet"], check=True)
        untracked = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        assert "artifacts/" in untracked and ".adapterbuild" not in untracked
    report(tmp_path / "artifacts/live", "train-x", "sha256:12", {"train_loss": 0.25})
    code = """
import json, sys, mlflow
client = mlflow.MlflowClient(sys.argv[1])
(run,) = client.search_runs(["0"])
losses = client.get_metric_history(run.info.run_id, "loss")
data = run.data
found = [data.params, data.tags["digest"], data.metrics["training/train_loss"], len(losses)]
print(json.dumps([run.info.status, run.info.run_name, *found]))
"""
    environment = os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true"}
    done = subprocess.run([sys.executable, "-c", code, runs.as_uri()], env=environment, capture_output=True, text=True, check=True)
    recipe = {"method.kind": "full", "betas": "[0.9, 0.999]"}
    assert json.loads(done.stdout) == ["FINISHED", "train-x", recipe, "sha256:12", 0.25, 4]
