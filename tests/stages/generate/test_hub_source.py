"""hub against a server on loopback that is shaped as the hub is: pinned rows, a row cap, refusals, connections that break."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.generate.hub_server import COMMIT, HubServer

ROOT = Path(__file__).parents[3]
ROWS = 3000
CODE = """
import json, sys
from pathlib import Path
from engine.core.errors import UserError
from stages.process.job import Job
from stages.generate import Parameters
from stages.generate.body import run
from stages.generate.sources.hub import Hub
from stages.generate.teachers.gold import Gold
for given in json.loads(sys.argv[1]):
    out = Path(given.pop("out"))
    out.mkdir()
    parameters = Parameters(source=Hub(**given), prompts=("{{ text }}",), teacher=Gold(column="n"))
    try:
        print(json.dumps(run(parameters, Job("generate-x", {}, out, None, out))))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def rows(count: int) -> bytes:
    return "".join(json.dumps({"text": f"row {n} {'long ' * 30}", "n": n}) + "\n" for n in range(count)).encode()


def generate(server: HubServer, folder: Path, *sources: dict) -> list:
    """What each source gave: its metrics, or the error; one process, as importing takes longer than reading."""
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_OFFLINE", None)
    given = [{"id": "me/papers", "revision": COMMIT, "out": str(folder / f"out{number}")} | source for number, source in enumerate(sources)]
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(given)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_rows_of_a_pinned_revision_and_what_the_hub_refuses(tmp_path):
    server = HubServer({"data/train.jsonl": rows(ROWS), "data/test.jsonl": rows(10)}, cuts=1).start()
    cases = {
        "gated": {"id": "me/gated"},
        "locked": {"id": "me/locked"},
        "missing": {"id": "me/nothing"},
        "revision": {"revision": "d" * 40},
        "split": {"split": "dev"},
        "config": {"config": "english"},
    }
    whole, few, *refused = generate(server, tmp_path, {}, {"split": "test", "limit": 4}, *cases.values())
    said = dict(zip(cases, refused, strict=True))
    assert whole["rows_in"] == whole["rows_out"] == ROWS, "the connection broke once, and no row is missing or twice"
    assert server.cuts == 0 and whole["duplicates"] == 0
    assert few["rows_in"] == few["rows_out"] == 4
    assert "me/gated is gated" in said["gated"] and "HF_TOKEN" in said["gated"] and "me/locked is gated" in said["locked"]
    assert "the hub has no data set me/nothing" in said["missing"] and "me/papers has no revision dddd" in said["revision"]
    assert "Available splits: ['train', 'test']" in said["split"] and "'english' not found" in said["config"]
    made = [json.loads(line) for line in (tmp_path / "out1/rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["completion"] for row in made] == ["0", "1", "2", "3"]
    assert all(COMMIT in asked for asked in server.asked if "resolve" in asked and "papers" in asked and "dddd" not in asked)
