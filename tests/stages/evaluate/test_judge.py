"""A chat model judges answers: what it is asked, what becomes of answers that it does not judge, and scores as a metric like any other."""

import json
from dataclasses import replace

import pytest
from pydantic import ValidationError

from engine.core.errors import UserError
from engine.spec.judge import Judge
from stages import generate
from stages.evaluate import Statistics
from stages.evaluate.body import run
from stages.evaluate.judgements import with_judgements
from stages.evaluate.metrics import JudgeScores
from stages.generate.body import run as generate_rows
from stages.generate.sources.predictions import Predictions
from tests.stages.evaluate.made import rows_of, values, write
from tests.stages.evaluate.test_body import comparisons, settings
from tests.stages.generate.chat_server import running
from tests.stages.generate.chatting import KEY
from tests.stages.initialize.tiny import make_job, write_lines

METRIC = JudgeScores(scores=("score",), lowest=1, highest=5)
ANSWERS = rows_of(["yes", "no", ""], ["yes", "yes", "yes"], tokens=2)


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


@pytest.fixture(autouse=True)
def _key(monkeypatch, tmp_path):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.chdir(tmp_path)


def judge(server, **values):
    return Judge(teacher={"model": "m", "base_url": server.url, "api_key_env": "TEACHER_KEY"}, **values)


def judged(server, folder, answers, carried=None, **values):
    """The file of what the judge says of ANSWERS, and the metrics of its step."""
    asked = judge(server, **values)
    rows = [{"id": one.id, "prompt": one.prompt, "carried": (carried or {}).get(one.id, {})} for one in answers]
    inputs = {"source/0": write(folder / "answers.jsonl", answers), "source/1": write_lines(folder / "test.jsonl", rows)}
    parameters = generate.Parameters(
        source=Predictions(task="words"),
        prompts=(asked.prompt,),
        system=asked.instruction(),
        empty_fields="allow",
        teacher=asked.requested(),
        carry=("id",),
    )
    job = make_job(folder / "job", inputs)
    return job.output / "rows.jsonl", generate_rows(parameters, job)


def judgements(folder, scores):
    rows = [{"carried": {"id": key}, "completion": json.dumps({"reason": "so", "score": score})} for key, score in scores.items()]
    return write_lines(folder, rows)


def test_the_judge_reads_question_reference_and_answer_and_says_a_number_of_the_scale(server, tmp_path):
    cut = replace(ANSWERS[1], finish_reason="length")
    path, metrics = judged(server, tmp_path, [ANSWERS[0], cut, ANSWERS[2], replace(ANSWERS[0], id="same")])
    assert (metrics["rows_in"], metrics["rows_out"], metrics["left_out"]) == (4, 4, {})
    asked = {question for _, question, _ in server.journal()["received"]}
    assert "# Question\nprompt 0\n\n# A good answer\nyes\n\n# The answer to judge\nyes\n" in asked
    assert any(question.endswith("no [it never ended, and was cut off here]\n") for question in asked)
    found = with_judgements([*ANSWERS, replace(ANSWERS[0], id="same")], path, METRIC)
    assert all(one.scores["score"] in range(1, 6) for one in found) and found[0].scores == found[3].scores
    assert len(server.received()) == 3, "equal answers are paid for once"


def test_columns_that_the_task_carries_are_fields(server, tmp_path):
    carried = {one.id: {"author": f"author of {one.id}"} for one in ANSWERS}
    judged(server, tmp_path, ANSWERS, carried, prompt="{{ prediction }} by {{ fields.author }}")
    assert "yes by author of row-0" in {question for _, question, _ in server.journal()["received"]}
    with pytest.raises(UserError, match="has no attribute 'writer'") as caught:
        judged(server, tmp_path / "other", ANSWERS, carried, prompt="{{ prediction }} by {{ fields.writer }}")
    assert caught.value.problems[0].where.line == 1


def test_refused_and_invalid_judgements_are_counted_and_weigh_nothing(server, tmp_path):
    answers = rows_of(["[refusal]", "[prose]", "[schema]", "[empty]", "good"], ["r"] * 5)
    path, metrics = judged(server, tmp_path, answers)
    assert metrics["left_out"] == {"empty answer": 1, "invalid JSON": 2, "refused": 1} and metrics["rows_out"] == 1
    found = with_judgements(answers, path, METRIC)
    assert [one.scores is None for one in found] == [True] * 4 + [False]
    assert values(METRIC, found) == {"judge_score": found[4].scores["score"], "judged_rate": 0.2}


def test_a_judge_that_judges_nothing_says_so(server, tmp_path):
    with pytest.raises(UserError, match="the judge has scored no answer") as caught:
        judged(server, tmp_path, rows_of(["[refusal]"], ["r"]))
    assert "1 for refused" in caught.value.problems[0].hint


def test_scores_are_compared_as_any_metric(tmp_path):
    ours, theirs = rows_of(["a"] * 40, ["r"] * 40), rows_of(["b"] * 40, ["r"] * 40)
    inputs = {
        "predictions/words": write(tmp_path / "ours.jsonl", ours),
        "compare/base/words": write(tmp_path / "base.jsonl", theirs),
        "judge/predictions/words": judgements(tmp_path / "j.jsonl", {one.id: 4 + n % 2 for n, one in enumerate(ours)}),
        "judge/compare/base/words": judgements(tmp_path / "k.jsonl", {one.id: 2 + n % 2 for n, one in enumerate(theirs[:30])}),
    }
    job = make_job(tmp_path / "job", inputs, plot=True)
    metrics = run(settings(metrics=(METRIC,), compare=("base",), statistics=Statistics(resamples=500)), job)
    change = {"judge_score": 2.0, "judged_rate": 0.25}
    intervals = {"judge_score": "percentile bootstrap", "judged_rate": "Clopper-Pearson"}
    assert metrics == {"words": {"rows": 40, "judge_score": 4.5, "judged_rate": 1.0, "change": change, "intervals": intervals}}
    better = comparisons(job)["base", "judge_score"]
    assert better["real"] and 1.5 < better["low"] < 2.0 < better["high"] < 2.5 and (better["value"], better["other_value"]) == (4.5, 2.5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"completion": "{}"}, "lacks the row's id"),
        ({"carried": {"id": "row-0"}, "completion": "{}"}, "lacks the scores score"),
        ({"carried": {"id": "row-0"}, "completion": '{"score": 6}'}, "score must be an integer from 1 to 5, got 6"),
        ({"carried": {"id": "row-0"}, "completion": '{"score": true}'}, "score must be an integer from 1 to 5, got True"),
        ({"carried": {"id": "row-9"}, "completion": '{"score": 3}'}, "row row-9 is judged here but is not among the predictions"),
    ],
)
def test_a_file_that_holds_no_judgements_of_these_answers_is_refused(tmp_path, row, message):
    with pytest.raises(UserError, match=message) as caught:
        with_judgements(ANSWERS, write_lines(tmp_path / "rows.jsonl", [row]), METRIC)
    assert str(caught.value.problems[0].where).startswith(str(tmp_path / "rows.jsonl"))


def test_answers_of_another_task_or_to_other_rows_are_refused(server, tmp_path):
    with pytest.raises(UserError, match="belongs to task 'other', not 'words'"):
        judged(server, tmp_path, [replace(ANSWERS[0], task="other")])
    files = (write(tmp_path / "a.jsonl", ANSWERS), write_lines(tmp_path / "b.jsonl", [{"id": "row-0"}]))
    with pytest.raises(UserError, match=r"row row-1, which is not in"):
        list(Predictions(task="words").read(files))


def test_several_scores_and_their_own_words(server):
    two = judge(server, scores=("fluency", "truth"), lowest=0, highest=10)
    assert "the scores fluency, truth: each a whole number from 0 (worst) to 10 (best)" in two.instruction()
    assert tuple(two.requested().json_schema["properties"]) == ("reason", "fluency", "truth")
    assert judge(server, system="Be kind.").instruction() == "Be kind."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lowest": 5}, "highest must be greater than lowest"),
        ({"highest": 500}, "by at most 100"),
        ({"scores": ("reason",)}, "'reason' is reserved"),
        ({"scores": ("a", "a")}, "must be unique"),
    ],
)
def test_a_scale_that_says_nothing_is_refused(server, values, message):
    with pytest.raises(ValidationError, match=message):
        judge(server, **values)


def test_the_form_of_the_answer_is_the_judges_own():
    with pytest.raises(ValidationError, match="json_schema cannot be set for a judge"):
        Judge(teacher={"model": "m", "json_schema": {"type": "string"}})
