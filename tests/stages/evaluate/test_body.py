"""Scores with intervals, comparisons that say which differences are real, and predictions that do not fit together."""

import csv
import json
from dataclasses import asdict, replace

import pytest

from engine.core.errors import UserError
from stages.evaluate import Parameters, Statistics
from stages.evaluate.body import run
from stages.evaluate.metrics import Bleu, Classification, EosRate, ExactMatch, Length, Perplexity, Rouge
from tests.stages.evaluate.made import rows_of, write
from tests.stages.initialize.tiny import contents, make_job

RIGHT = rows_of(["yes"] * 60, ["yes"] * 60, tokens=2)
HALF = rows_of(["yes", "no"] * 30, ["yes"] * 60, tokens=3)
WRONG = rows_of(["no"] * 60, ["yes"] * 60, tokens=2)


def settings(**values):
    given = {"model": "mine", "tasks": ("words",), "metrics": (ExactMatch(), EosRate(), Length()), "statistics": Statistics(resamples=1000)}
    return Parameters(**(given | values))


def job_of(folder, ours, **others):
    inputs = {"predictions/words": write(folder / "mine.jsonl", ours)}
    inputs |= {f"compare/{name}/words": write(folder / f"{name}.jsonl", theirs) for name, theirs in others.items()}
    return make_job(folder / "job", inputs, plot=True)


def comparisons(job):
    return {(row["other"], row["metric"]): row for row in json.loads((job.output / "comparisons.json").read_text())["comparisons"]}


def test_values_stand_in_the_metrics_and_intervals_beside_them(tmp_path):
    job = job_of(tmp_path, HALF)
    how = {"exact_match": "Clopper-Pearson", "eos_rate": "Clopper-Pearson", "length": "percentile bootstrap"}
    assert run(settings(), job) == {"words": {"rows": 60, "exact_match": 0.5, "eos_rate": 1.0, "length": 3.0, "intervals": how}}
    scores = json.loads((job.output / "scores.json").read_text())["models"]["mine"]["words"]
    assert 0.35 < scores["exact_match"]["low"] < 0.45 < 0.55 < scores["exact_match"]["high"] < 0.65
    # 0.025 is the chance that all of 60 answers end by themselves where 94 % of all answers do.
    assert scores["eos_rate"] == {"value": 1.0, "low": 0.940371, "high": 1.0, "rows": 60, "interval": "Clopper-Pearson"}
    with job.plot.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == ["words exact_match", "words eos_rate", "words length"]
    assert rows[0]["model"] == "mine" and float(rows[0]["high"]) == scores["exact_match"]["high"]


def test_a_table_says_which_differences_are_real(tmp_path):
    job = job_of(tmp_path, RIGHT, half=HALF, same=RIGHT)
    run(settings(compare=("half", "same")), job)
    found = comparisons(job)
    better, equal, shorter = found["half", "exact_match"], found["same", "exact_match"], found["half", "length"]
    assert better["difference"] == 0.5 and better["low"] > 0.3 and better["real"] and better["p_corrected"] >= better["p"]
    assert equal["difference"] == 0 and not equal["real"] and equal["p"] == 1
    assert shorter["difference"] == -1 and shorter["real"]
    method = json.loads((job.output / "comparisons.json").read_text())["method"]
    assert (method["test"], method["correction"], method["corrected_over"]) == ("paired permutation", "holm", "one metric")


def test_the_correction_decides_what_counts_as_real(tmp_path):
    ours = rows_of(["yes"] * 60, ["yes"] * 60)
    slightly = rows_of(["yes"] * 54 + ["no"] * 6, ["yes"] * 60)
    real = {}
    for correction in ("none", "holm"):
        job = job_of(tmp_path / correction, ours, other=slightly, same=ours, right=ours)
        statistics = Statistics(resamples=1000, correction=correction, confidence=0.96)
        run(settings(compare=("other", "same", "right"), statistics=statistics), job)
        real[correction] = comparisons(job)["other", "exact_match"]["real"]
    assert real == {"none": True, "holm": False}


def test_what_an_adapter_has_forgotten_is_its_change_from_the_base_where_it_was_not_trained(tmp_path):
    job = job_of(tmp_path, WRONG, base=RIGHT)
    metrics = run(settings(compare=("base",), trained_on=("other",)), job)
    assert metrics["words"]["change"] == {"exact_match": -1.0, "eos_rate": 0.0, "length": 0.0}
    forgetting = json.loads((job.output / "comparisons.json").read_text())["forgetting"]
    assert (forgetting[0]["metric"], forgetting[0]["difference"], forgetting[0]["real"]) == ("exact_match", -1.0, True)
    trained = job_of(tmp_path / "trained", WRONG, base=RIGHT)
    run(settings(compare=("base",), trained_on=("words",)), trained)
    assert json.loads((trained.output / "comparisons.json").read_text())["forgetting"] == []


def test_held_out_text_has_a_perplexity_alone(tmp_path):
    def read(loss):
        rows = rows_of([None] * 9, ["text"] * 9, loss=loss, loss_tokens=4)
        return [replace(row, task="prose", finish_reason=None) for row in rows]

    inputs = {"predictions/words": write(tmp_path / "w.jsonl", HALF), "compare/base/words": write(tmp_path / "b.jsonl", HALF)}
    inputs |= {"predictions/prose": write(tmp_path / "p.jsonl", read(4.4)), "compare/base/prose": write(tmp_path / "q.jsonl", read(4.0))}
    job = make_job(tmp_path / "job", inputs, plot=True)
    metrics = run(settings(held_out=("prose",), compare=("base",)), job)
    intervals = dict.fromkeys(("loss", "perplexity"), "percentile bootstrap")
    change = {"loss": 0.1, "perplexity": 0.285884}
    assert metrics["prose"] == {"rows": 9, "loss": 1.1, "perplexity": 3.004166, "change": change, "intervals": intervals}


def test_the_same_predictions_give_the_same_bytes(tmp_path):
    kept = []
    for name in ("once", "again"):
        job = job_of(tmp_path / name, HALF, right=RIGHT)
        parameters = settings(
            compare=("right",), metrics=(ExactMatch(), Rouge(), Bleu(), Classification()), statistics=Statistics(resamples=200)
        )
        metrics = run(parameters, job)
        kept.append((metrics, contents(job.output), job.plot.read_bytes()))
    assert kept[0] == kept[1]
    signatures = json.loads(kept[0][1]["scores.json"])["signatures"]
    assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")


def test_rows_that_only_one_model_answered_are_not_compared(tmp_path):
    job = job_of(tmp_path, HALF[:40], other=RIGHT[20:])
    run(settings(compare=("other",)), job)
    found = comparisons(job)["other", "exact_match"]
    assert (found["rows"], found["value"], found["other_value"]) == (20, 0.5, 1.0)


def test_numbers_are_rounded_for_stable_diffs(tmp_path):
    metrics = run(settings(metrics=(ExactMatch(),)), job_of(tmp_path, rows_of(["a", "b", "c"], ["a", "a", "a"])))
    assert metrics["words"]["exact_match"] == 0.333333


def refused(parameters, job, *messages):
    with pytest.raises(UserError) as caught:
        run(parameters, job)
    text = str(caught.value)
    assert all(message in text for message in messages), text


def test_no_predictions(tmp_path):
    refused(settings(), job_of(tmp_path, []), "no predictions for task 'words'", "mine.jsonl", "tasks.words.split.test")


def test_predictions_of_another_task(tmp_path):
    others = [*RIGHT[:2], replace(RIGHT[2], task="topic")]
    refused(settings(), job_of(tmp_path, others), "belongs to task 'topic', not 'words'", "mine.jsonl:3")


def test_predictions_on_other_rows(tmp_path):
    moved = [replace(row, id=f"other-{row.id}") for row in RIGHT]
    refused(settings(compare=("moved",)), job_of(tmp_path, RIGHT, moved=moved), "has no row in common with", "moved.jsonl")
    edited = [*RIGHT[:4], replace(RIGHT[4], reference="no"), *RIGHT[5:]]
    refused(
        settings(compare=("edited",)), job_of(tmp_path / "b", RIGHT, edited=edited), "a different prompt or reference", "edited.jsonl:5"
    )


def test_a_metric_that_needs_references_where_there_are_none(tmp_path):
    rows = [*RIGHT[:3], replace(RIGHT[3], reference=None)]
    refused(settings(), job_of(tmp_path, rows), "metric 'exact_match' needs references", "row-3", "mine.jsonl:4")
    assert run(settings(metrics=(EosRate(), Length())), job_of(tmp_path / "b", rows))["words"]["rows"] == 4


def test_a_metric_that_needs_likelihoods_where_nobody_measured_them(tmp_path):
    refused(settings(metrics=(Perplexity(),)), job_of(tmp_path, RIGHT), "metric 'perplexity' needs likelihoods", "mine.jsonl:1")


def test_one_metric_twice(tmp_path):
    refused(settings(metrics=(Rouge(), Rouge(stemmer=True))), job_of(tmp_path, RIGHT), "two metrics both produce 'rouge1'")


def line(**values):
    """One line of a file of predictions, with other values for some fields, or without those that are `...`."""
    row = asdict(RIGHT[0]) | values
    return json.dumps({name: value for name, value in row.items() if value is not ...})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (line(answer=...), "lacks 'answer'"),
        (line(score=1), "has 'score'"),
        (line(id=3), "'id' is a number"),
        (line(tokens=True), "'tokens' is true or false"),
        (line(finish_reason="eos"), "finish_reason is 'eos'"),
        ("[]", "must be a JSON object"),
    ],
)
def test_a_line_that_is_no_prediction(tmp_path, line, message):
    job = job_of(tmp_path, RIGHT)
    with job.inputs["predictions/words"].open("a") as file:
        file.write(line + "\n")
    refused(settings(), job, message, "mine.jsonl:61")


def test_what_a_metric_cannot_see_and_how_it_cuts_words_is_in_the_metrics(tmp_path):
    rows = rows_of(["今天天气很好", "a", "👍"], ["今天天气很好", "a", "b"])
    found = {}
    for how in ("unicode", "published"):
        job = job_of(tmp_path / how, rows)
        metrics = run(settings(metrics=(Rouge(segmentation=how), Bleu())), job)["words"]
        found[how] = metrics["rouge1"]
        assert metrics["segmentation"] == {"rouge": how}
        assert metrics["unseen_rows"] == {"rouge": 1 if how == "unicode" else 2, "bleu": 1}
        told = json.loads((job.output / "scores.json").read_text())
        assert told["segmentation"] == {"rouge": how} and told["unseen_rows"] == {"words": metrics["unseen_rows"]}
    assert found == {"unicode": pytest.approx(2 / 3, abs=1e-6), "published": pytest.approx(1 / 3, abs=1e-6)}
    seen = run(settings(metrics=(Rouge(), Bleu())), job_of(tmp_path / "seen", RIGHT))["words"]
    assert "unseen_rows" not in seen


def test_two_models_that_are_always_right_differ_by_an_interval_of_some_width(tmp_path):
    job = job_of(tmp_path, RIGHT, same=RIGHT)
    run(settings(compare=("same",)), job)
    match, length = comparisons(job)["same", "exact_match"], comparisons(job)["same", "length"]
    assert match["interval"].startswith("paired score") and -0.1 < match["low"] < -0.02 and 0.02 < match["high"] < 0.1
    assert length["interval"] == "paired percentile bootstrap" and (length["low"], length["high"]) == (0, 0)


def test_models_are_not_compared_where_their_other_references_differ(tmp_path):
    rows = [replace(row, references=("a", "b")) for row in rows_of(["a"] * 4, ["a"] * 4)]
    with pytest.raises(UserError, match="has a different prompt or reference"):
        run(settings(compare=("other",)), job_of(tmp_path, rows, other=[replace(row, references=("a", "c")) for row in rows]))
