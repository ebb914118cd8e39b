"""Files that a task names, and rows of another task, are inputs like all others: planned, watched by DVC, and rebuilt when they change."""

import gzip
import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Place

pytestmark = pytest.mark.slow

SPEC = """
[experiment]
name = "x"

[model]
name = "tiny"
architecture = { kind = "gpt2", hidden_size = 16, layers = 1, heads = 2, max_length = 128 }

[tasks.answer]
prompts = ["Q: {{ text }}\\nA:"]
few_shot = { count = 2, answer = "answer" }
system = "You answer."
teacher = { kind = "gold", column = "answer" }
carry = ["text"]
cleaning = ["duplicates", { kind = "overlap", against = { kind = "jsonl", path = "data/held.jsonl" }, shortest = 3 }]
split = { validation = 0.2, test = 0.2 }

[tasks.answer.source]
kind = "jsonl"
path = "data/pages/*.gz"
columns = { page = { of = "text.split(' ')[1]", type = "integer" } }
where = "page != 2"

[tasks.judge]
source = { kind = "task", task = "answer" }
prompts = [{ file = "prompts/judge.jinja" }]
teacher = { kind = "gold", column = "completion" }
split = { validation = 0.2, test = 0.2 }

[mixture]
tasks = ["answer", "judge"]

[training]
method = "full"
"""


def write_page(root: Path, number: int, lines: int = 9) -> None:
    rows = [{"text": f"page {number} line {line}", "answer": f"a{number}{line}"} for line in range(lines)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / f"data/pages/p{number}.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def splits(root: Path, task: str) -> dict[str, str]:
    """Each group's split."""
    return {
        json.loads(line)["group"]: split
        for split in ("train", "validation", "test")
        for line in (root / f"artifacts/split-{task}/{split}.jsonl").read_text("utf-8").splitlines()
    }


@pytest.mark.long
def test_a_chain_of_tasks_over_many_files(tmp_path):
    root = tmp_path / "workspace"
    for folder in ("specs", "data/pages", "prompts"):
        (root / folder).mkdir(parents=True)
    place = Place(root)
    place.run("engine", "init", ".")
    for file in (root / "specs").glob("*.toml"):
        file.unlink()
    (root / "specs/x.toml").write_text(SPEC, "utf-8")
    (root / "prompts/judge.jinja").write_text("Judge: {{ completion }} of {{ text }}\n", "utf-8")
    (root / "data/held.jsonl").write_text('{"text": "page 3 line 0"}\n', "utf-8")
    for number in (1, 2, 3):
        write_page(root, number)
    place.run("engine", "build", "split-answer", "split-judge")
    metrics = json.loads((root / "metrics/generate-answer.json").read_text("utf-8"))
    assert metrics["rows_in"] == 27 and metrics["rows_out"] == 17
    assert metrics["left_out"] == {"overlap with the evaluation set": 1, "where": 9}
    assert splits(root, "answer") == splits(root, "judge"), "what is made of a row stays where the row is"

    (root / "prompts/judge.jinja").write_text("Rate: {{ completion }} of {{ text }}\n", "utf-8")
    plan = json.loads(place.run("engine", "plan", "split-judge", "--json", check=False).stdout)["steps"]
    reasons = {step["name"]: step["reasons"] for step in plan}
    assert reasons["generate-judge"][0]["subject"] == "prompts/judge.jinja" and not reasons["generate-answer"]
    before = splits(root, "answer")
    write_page(root, 4)
    place.run("dvc", "repro", "split-answer", "split-judge")
    after = splits(root, "answer")
    assert len(after) == 26 and before.items() <= after.items() and splits(root, "judge") == after
    assert "Rate: a10 of page 1 line 0" in (root / "artifacts/generate-judge/rows.jsonl").read_text("utf-8")
