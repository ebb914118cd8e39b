"""A model and an adapter that exist are evaluated, compared and shown without a training."""

import json
import re
import shutil

import pytest

from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import build_recorded

pytestmark = pytest.mark.slow

SPEC = """
[experiment]
name = "{name}"

[model]
{model}

[tasks.a]
source = {{ kind = "jsonl", path = "data/a.jsonl" }}
prompts = ["Say {{{{ word }}}}:"]
teacher = {{ kind = "gold", column = "word" }}
split = {{ validation = 0.1, test = 0.2 }}
max_new_tokens = 4

[evaluation]
metrics = ["exact_match", "eos_rate"]
rows = 4
compare = {compare}

[resources]
threads = 1
"""


def test_models_that_exist_are_evaluated_and_every_verb_knows_them(place: Place):
    shutil.copytree(place.root / "artifacts/initialize-toy", place.root / "base")
    place.write("specs/bare.toml", SPEC.format(name="bare", model='path = "base"\nname = "bare"', compare=[]))
    place.write("specs/again.toml", SPEC.format(name="again", model='experiment = "one"', compare=["base", "one"]).replace("'", '"'))
    assert {name for name, action in place.plan().items() if action != "keep" and name != "resolve"} >= {"predict-bare", "predict-again"}
    build_recorded(place)
    answers = {name: (place.root / f"artifacts/predict-{name}/predictions-a.jsonl").read_text() for name in ("one", "again", "bare")}
    assert answers["again"] == answers["one"], "the adapter of the other experiment, on the same rows"
    results = {row["experiment"]: row for row in json.loads(place.run("engine", "results", "--json").stdout)["results"]}
    assert (results["bare"]["method"], results["bare"]["tasks"], results["bare"]["digest"]) == ("none", [], None)
    (one,) = [row for row in results["again"]["comparisons"] if row["other"] == "one" and row["metric"] == "exact_match"]
    assert one["difference"] == 0 and not one["trained_on"]
    assert "evaluate-bare" in place.run("engine", "verify", "bare").stdout
    assert "evaluate-bare" in place.run("engine", "why", "bare").stdout
    assert {row["experiment"] for row in json.loads(place.run("engine", "adapters", "--json").stdout)["adapters"]} == {"one", "two"}
    place.run("engine", "report")
    assert re.search(r"^\| bare \| +\| none \|.*specs/bare.toml", (place.root / "report/report.md").read_text(), re.MULTILINE)
    refused = place.run("engine", "inspect", "bare", check=False)
    assert refused.returncode == 1 and "specs/bare.toml trains nothing" in refused.stderr
    assert "specs/bare.toml trains nothing: there are no tokens to show" in place.run("engine", "preview", "specs/bare.toml", "a").stderr
    assert place.run("dvc", "repro").returncode == 0 and set(place.plan().values()) == {"keep"}
