"""MLflow itself, through a whole build: recipe, losses, content address and evaluation reach one run."""

import json
import os
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import Place, address

pytest.importorskip("mlflow", reason="mlflow is not installed (pip install mlflow-skinny)")
pytestmark = pytest.mark.slow

RUNS = """
import json, mlflow
client = mlflow.MlflowClient()
runs = client.search_runs(["0"])
print(json.dumps([[run.info.status, run.info.run_name, run.data.params, run.data.tags.get("digest"), run.data.metrics] for run in runs]))
"""


def test_one_run_of_mlflow_holds_all_about_a_training(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (place.root.parent / "runs").as_uri())
    place.edit("specs/parts/common.toml", "threads = 1", 'threads = 1\nreport_to = ["mlflow"]')
    planned = {name: action for name, action in place.plan().items() if name != "resolve"}
    assert set(planned.values()) == {"keep"}, "who watches is no part of any recipe"
    place.edit("specs/one.toml", "seed = 1", "seed = 2")
    said = place.run("engine", "build", "one")
    assert "warning" not in said.stderr
    done = subprocess.run(
        [sys.executable, "-c", RUNS], env=os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true"}, capture_output=True, text=True, check=True
    )
    ((status, name, parameters, digest, metrics),) = json.loads(done.stdout)
    assert (status, name, digest) == ("FINISHED", "train-one", address(place.root / "artifacts/train-one.provenance.json"))
    assert parameters["method.r"] == "2" and parameters["seed"] == "2"
    scores = json.loads((place.root / "metrics/evaluate-one.json").read_text())
    losses = json.loads((place.root / "metrics/train-one.json").read_text())
    assert metrics["evaluation/a/exact_match"] == scores["a"]["exact_match"]
    assert metrics["training/train_loss"] == losses["train_loss"] and metrics["loss"] > 0
    assert set(place.repro().values()) == {"keep"}
