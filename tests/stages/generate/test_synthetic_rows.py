"""Synthetic sources and rule teachers, through the body."""

from collections import Counter

import pytest

from engine.core.errors import UserError
from stages.generate import Parameters
from stages.generate.body import run
from stages.generate.sources.jsonl import Jsonl
from stages.generate.sources.synthetic import Synthetic
from stages.generate.teachers.gold import Gold
from stages.generate.teachers.rules import Rules
from stages.process.job import Job
from stages.rows.jsonl import read_objects, write_rows


def generate(folder, source, teacher, inputs=None):
    folder.mkdir(exist_ok=True)
    parameters = Parameters(source=source, prompts=("{{ text }}\n",), teacher=teacher)
    metrics = run(parameters, Job("generate-x", inputs or {}, folder, None, folder))
    return metrics, [row for _, row in read_objects(folder / "rows.jsonl")]


@pytest.mark.parametrize("rule", ["key_sentence", "headline", "topic"])
def test_every_report_has_an_answer(tmp_path, rule):
    metrics, rows = generate(tmp_path, Synthetic(generator="reports", rows=50), Rules(rule=rule))
    assert metrics["rows_in"] == metrics["rows_out"] == 50 and metrics["left_out"] == {}
    assert rule != "key_sentence" or all(row["completion"] in row["prompt"] for row in rows)
    assert rule != "topic" or 1 < len(Counter(row["completion"] for row in rows)) < 10


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_rows(tmp_path):
    made = [
        generate(tmp_path / str(n), Synthetic(generator="copies", rows=20, seed=seed), Gold(column="text"))[1]
        for n, seed in enumerate((0, 0, 1))
    ]
    assert made[0] == made[1] != made[2]
    assert (tmp_path / "0/rows.jsonl").read_bytes() == (tmp_path / "1/rows.jsonl").read_bytes()


def test_a_rule_over_a_strange_text_is_the_users_error(tmp_path):
    source = {"source": tmp_path / "rows.jsonl"}
    write_rows(source["source"], [{"text": "Nothing that the rules know."}])
    with pytest.raises(UserError, match="finds no answer") as caught:
        generate(tmp_path / "out", Jsonl(path="x"), Rules(rule="topic"), source)
    assert caught.value.problems[0].where.line == 1
    with pytest.raises(UserError, match="no text in column 'txt'") as caught:
        generate(tmp_path / "out", Jsonl(path="x"), Rules(rule="topic", column="txt"), source)
    assert caught.value.problems[0].hint == "did you mean 'text'?"
