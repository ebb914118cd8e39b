"""One spec with rows of a hub on loopback and answers of models on this machine: checked, planned, built, and planned again."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import build_recorded
from tests.stages.generate.hub_server import COMMIT, NEXT, HubServer
from tests.stages.generate.tiny_models import llama, t5
from tests.support.toys import toy

pytestmark = pytest.mark.slow

TASKS = {
    "papers": """\
source = { kind = "hub", id = "me/papers", revision = "REVISION", limit = 12 }
prompts = ["Say {{ text }}:"]
teacher = { kind = "gold", column = "title" }""",
    "continued": """\
source = { kind = "task", task = "papers" }
prompts = ["{{ completion }}"]
teacher = { kind = "local", path = "models/llama", max_new_tokens = 3, on_cut_off = "keep", threads = 1 }""",
    "answered": """\
source = { kind = "task", task = "papers" }
prompts = ["{{ completion }}"]
teacher = { kind = "local", path = "models/t5", max_new_tokens = 3, on_cut_off = "keep", threads = 1 }""",
}
SPEC = toy(TASKS, "papers")
STEPS = ("generate-continued", "generate-answered")
COUNT = 12


@pytest.fixture
def hub() -> HubServer:
    lines = (json.dumps({"text": f"text {n}", "title": f"title {n}"}) + "\n" for n in range(30))
    return HubServer({"data/train.jsonl": "".join(lines).encode()}).start()


@pytest.fixture
def place(tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    made = Place(tmp_path / "w")
    made.root.mkdir()
    made.run("engine", "init", ".")
    (made.root / "specs/first.toml").unlink()
    llama(made.root / "models/llama")
    t5(made.root / "models/t5")
    return made


def rows(place: Place, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place.root / f"artifacts/generate-{task}/rows.jsonl").read_text("utf-8").splitlines()]


def metrics(place: Place, task: str) -> dict[str, Any]:
    return json.loads((place.root / f"metrics/generate-{task}.json").read_text("utf-8"))


@pytest.mark.long
def test_rows_of_the_hub_and_answers_of_models_on_this_machine(place: Place, hub: HubServer):
    # A branch is refused, and the refusal says the commit that it names at this moment.
    place.write("specs/papers.toml", SPEC.replace("REVISION", "main"))
    refused = place.run("engine", "check", check=False)
    assert refused.returncode == 1 and f'revision = "{COMMIT}"' in refused.stderr and "specs/papers.toml:9:" in refused.stderr
    hub.move()
    moved = place.run("engine", "plan", check=False)
    assert moved.returncode == 1 and f'revision = "{NEXT}"' in moved.stderr, "the branch has moved, and the plan says where to"

    # A commit asks nobody: planning needs no hub, and building only that commit's files.
    place.write("specs/papers.toml", SPEC.replace("REVISION", COMMIT))
    hub.asked.clear()
    assert " OK, " in place.run("engine", "check").stderr
    assert set(place.plan(*STEPS).values()) <= {"run", "maybe"} and not hub.asked
    build_recorded(place, *STEPS)
    assert hub.asked and not [path for path in hub.asked if NEXT in path]
    assert COMMIT in (place.root / "artifacts/identity/generate-papers.json").read_text(), "the commit is part of what the rows are"
    assert set(place.plan(*STEPS).values()) == {"keep"}

    papers = rows(place, "papers")
    assert {row["completion"] for row in papers} == {f"title {n}" for n in range(COUNT)}
    for task in ("continued", "answered"):
        found, made = metrics(place, task), rows(place, task)
        assert found["rows_in"] == COUNT == found["rows_out"] + sum(found["left_out"].values()) and found["rows_out"] == len(made) > 0
        assert {row["prompt"] for row in made} <= {row["completion"] for row in papers}
    assert {row["completion"] for row in rows(place, "continued")} != {row["completion"] for row in rows(place, "answered")}

    # A teacher's weights are part of what it answers.
    llama(place.root / "models/other", seed=1)
    (place.root / "models/other/model.safetensors").replace(place.root / "models/llama/model.safetensors")
    planned = place.plan(*STEPS)
    assert (planned["generate-continued"], planned["generate-answered"], planned["generate-papers"]) == ("run", "keep", "keep")
