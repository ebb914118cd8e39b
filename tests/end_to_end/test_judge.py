"""A spec with a judge, built end to end: planned with its price, paid for once, compared with the base, and the key in no file."""

import json

import pytest

from tests.end_to_end.conftest import Place
from tests.end_to_end.test_chat_teacher import KEY, files_with
from tests.stages.generate.chat_server import running

pytestmark = pytest.mark.slow

JUDGE = """
[evaluation]
compare = ["base"]

[evaluation.judge]
teacher = {{ model = "m", base_url = "{url}", api_key_env = "ROAD_KEY", input_price = 100.0, output_price = 200.0 }}

[evaluation.versus]
teacher = {{ model = "m", base_url = "{url}", api_key_env = "ROAD_KEY" }}
"""


def test_answers_are_judged_once_and_compared(place: Place, monkeypatch):
    monkeypatch.setenv("ROAD_KEY", KEY)
    with running() as server:
        place.write("specs/one.toml", (place.root / "specs/one.toml").read_text() + JUDGE.format(url=server.url))
        planned = {step["name"]: step for step in json.loads(place.run("engine", "plan", "one", "--json", check=False).stdout)["steps"]}
        asked = {"predict-toy-a", "judge-one-a", "judge-toy-base-a", "versus-one-toy-base-a"}
        assert {name for name, step in planned.items() if step["action"] != "keep"} == {"resolve", "evaluate-one", "score-one", *asked}
        before, unknown = (planned[name]["facts"]["asking"] for name in ("judge-one-a", "judge-toy-base-a"))
        assert before["rows"] == 4 and 0 < before["requests"] <= 4 and before["cost"] > 0 and before["complete"]
        assert "predict-toy-a runs first" in unknown["unknown"] and server.received() == []

        place.run("engine", "build", "evaluate-one")
        paid = server.received()
        compared = [question for question in paid if "# The second answer" in question]
        assert before["requests"] <= len(paid) - len(compared) <= 8 and len(set(paid)) == len(paid)
        metrics = json.loads((place.root / "metrics/evaluate-one.json").read_text())["a"]
        counts = metrics["versus"]["base"]
        assert sum(counts[outcome] for outcome in ("wins", "losses", "ties", "unjudged")) == 4 and 0 <= counts["value"] <= 1
        assert len(compared) == 2 * (4 - counts["equal_answers"]), "both orders are asked, unless the answers are equal"
        assert 1 <= metrics["judge_score"] <= 5 and metrics["judged_rate"] == 1.0 and "judge_score" in metrics["change"]
        assert files_with(KEY, place.root) == []

        # Under a budget that allows next to nothing another metric is measured: nobody is asked again.
        place.edit("specs/one.toml", "input_price = 100.0", "max_requests = 1, input_price = 100.0")
        place.edit("specs/parts/common.toml", '"eos_rate"', '"length"')
        done = place.run("engine", "build", "evaluate-one")
        assert "judge" not in " ".join(line.split()[1] for line in done.stderr.splitlines() if line.startswith("run "))
        assert server.received() == paid and "length" in json.loads((place.root / "metrics/evaluate-one.json").read_text())["a"]
