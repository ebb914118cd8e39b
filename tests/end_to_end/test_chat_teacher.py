"""A workspace whose rows a chat server answers: planned with its price, killed and gone on with, and the key in no file."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from tests.end_to_end.conftest import Place
from tests.stages.generate.chat_server import Server, running
from tests.support.toys import toy

pytestmark = pytest.mark.slow

KEY = "sk-road-0123456789abcdef"
TASK = """\
source = { kind = "jsonl", path = "rows.jsonl" }
prompts = ["Say {{ word }}", "Repeat {{ word }}"]

[tasks.words.teacher]
kind = "chat"
model = "m"
base_url = "URL"
api_key_env = "ROAD_KEY"
max_tokens = 10
in_flight = 4
retries = 2
input_price = 100.0
output_price = 200.0"""


@pytest.fixture
def server():
    with running() as started:
        yield started


@pytest.fixture
def place(tmp_path: Path, server: Server, monkeypatch) -> Place:
    monkeypatch.setenv("ROAD_KEY", KEY)
    made = Place(tmp_path / "w")
    made.root.mkdir()
    made.run("engine", "init", ".")
    (made.root / "specs/first.toml").unlink()
    made.write("specs/words.toml", toy({"words": TASK.replace("URL", server.url)}))
    write_rows(made, 40)
    return made


def write_rows(place: Place, count: int, *more: str) -> None:
    words = [*(f"w{number}" for number in range(count)), *more]
    place.write("rows.jsonl", "".join(json.dumps({"word": word}) + "\n" for word in words))


def asking(place: Place, step: str = "generate-words") -> dict:
    """What the plan says that a step would ask."""
    done = place.run("engine", "plan", step, "--json", check=False)
    return next(found["facts"]["asking"] for found in json.loads(done.stdout)["steps"] if found["name"] == step)


def files_with(key: str, root: Path) -> list[str]:
    """The files below ROOT, databases and caches too, in which KEY stands."""
    return [str(path) for path in root.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]


@pytest.mark.long
def test_the_plan_counts_what_is_paid_for_and_what_would_be(place: Place, server: Server):
    before = asking(place)
    assert (before["requests"], before["rows"], before["rows_cached"], before["complete"]) == (40, 40, 0, True) and before[
        "completion_tokens"
    ] == 400
    assert before["cost"] == pytest.approx((before["prompt_tokens"] * 100 + 400 * 200) / 1e6, abs=1e-4)
    assert server.received() == []
    place.run("engine", "build", "generate-words")
    assert len(server.received()) == 40 and asking(place) is None
    # Other limits and prices ask and change nothing.
    place.edit("specs/words.toml", "in_flight = 4", "in_flight = 8")
    assert place.plan()["generate-words"] == "keep"
    write_rows(place, 40, "new", "newer", "newer")
    assert (found := asking(place))["requests"] == 2 and found["rows_cached"] == 40 and found["rows"] == 43
    place.edit("specs/words.toml", "Repeat {{", "Repeat this: {{")
    changed = asking(place)["requests"]
    assert 10 < changed < 32, "about half of the rows use the edited template"
    place.run("engine", "build", "generate-words")
    assert len(server.received()) == 40 + changed
    rows = (place.root / "artifacts/generate-words/rows.jsonl").read_bytes()
    for folder in ("artifacts", ".dvc/cache", "dvc.lock"):
        subprocess.run(["rm", "-rf", str(place.root / folder)], check=True)
    place.run("engine", "gc", "--force", check=False)
    place.run("engine", "build", "generate-words")
    assert len(server.received()) == 40 + changed and (place.root / "artifacts/generate-words/rows.jsonl").read_bytes() == rows


@pytest.mark.long
def test_the_key_is_in_no_file_after_success_and_after_failures(place: Place, server: Server):
    place.run("engine", "build", "generate-words")
    assert server.journal()["keys"] == [f"Bearer {KEY}"] and files_with(KEY, place.root) == []
    for fault in ("401", "500", "timeout"):
        write_rows(place, 40, f"[{fault}] {fault}")
        if fault == "timeout":
            place.edit("specs/words.toml", "retries = 2", "retries = 0\ntimeout = 0.3")
        failed = place.run("engine", "build", "generate-words", check=False)
        assert failed.returncode == 1 and "Traceback" not in failed.stderr, failed.stderr
        assert KEY not in failed.stdout + failed.stderr and files_with(KEY, place.root) == []


def test_an_interrupted_build_keeps_what_was_answered(place: Place, server: Server):
    server.set(delay=0.3)
    command = [sys.executable, "-m", "engine", "build", "generate-words"]
    process = subprocess.Popen(command, cwd=place.root, env=dvc_environment(), stderr=subprocess.PIPE, start_new_session=True, text=True)
    while server.counts()["received"] < 9 and process.poll() is None:
        pass
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in errors
    received = len(server.received())
    server.set(delay=0.0)
    place.run("engine", "build", "generate-words")
    again = [prompt for prompt in server.received()[received:] if prompt in server.received()[:received]]
    assert again == [] and len(server.received()) == 40, "what was on its way was waited for"
