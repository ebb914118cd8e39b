"""Metrics on answers whose scores are known."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.metrics import EosRate, ExactMatch, Length, Rouge
from stages.evaluate.metrics.prediction import Prediction, mean

VECTORS = Path(__file__).parents[3] / ".." / "shared" / "data" / "rouge_score_testdata"


def prediction(answer="a", reference="a", ended=True, tokens=1):
    return Prediction("id", "prompt", reference, answer, ended, tokens)


PREDICTIONS = st.builds(prediction, st.text(max_size=20), st.text(max_size=20), st.booleans(), st.integers(0, 50))


def test_exact_match_forgives_white_space_at_the_ends_alone():
    answers = [prediction(" a\n", "a"), prediction("A", "a"), prediction("a b", "ab"), prediction("a", " a")]
    assert ExactMatch().score(answers) == {"exact_match": 0.5}


def test_an_answer_that_never_ended_matches_nothing():
    assert ExactMatch().score([prediction(ended=False), prediction()]) == {"exact_match": 0.5}


def test_eos_rate_and_length():
    answers = [prediction(ended=True, tokens=3), prediction(ended=False, tokens=8), prediction(ended=True, tokens=0)]
    assert EosRate().score(answers) == {"eos_rate": pytest.approx(2 / 3)}
    assert Length().score(answers) == {"length": pytest.approx(11 / 3)}


@given(st.lists(PREDICTIONS, min_size=1, max_size=5))
def test_shares_lie_between_none_and_all_and_no_match_without_an_end(answers):
    scores = {**ExactMatch().score(answers), **EosRate().score(answers), **Rouge().score(answers)}
    assert all(0 <= value <= 1 for value in scores.values())
    assert scores["exact_match"] <= scores["eos_rate"]


@given(st.lists(PREDICTIONS, min_size=1, max_size=5))
def test_the_order_of_the_answers_does_not_matter(answers):
    for metric in (ExactMatch(), EosRate(), Length()):
        assert metric.score(answers) == pytest.approx(metric.score(answers[::-1]))


def test_mean():
    assert mean([1.0, 2.0, 6.0]) == 3.0


def vectors():
    if not VECTORS.is_dir():
        pytest.skip("the published ROUGE test vectors are not on this machine")
    return json.loads((VECTORS / "expected.json").read_text("utf-8"))


def lines(name):
    return (VECTORS / name).read_text("utf-8").splitlines()


def test_rouge_of_published_strings():
    cases = [case for case in vectors()["string_cases"] if case["metric"] != "rougeLsum"]
    assert len(cases) >= 4
    for case in cases:
        scores = Rouge().score([prediction(case["prediction"], case["target"])])
        assert scores[case["metric"]] == pytest.approx(case["fmeasure"], abs=1e-9)


def test_rouge_of_published_lines():
    cases = vectors()["line_scores"]["cases"]
    targets, answers = lines("target.txt"), lines("prediction.txt")
    for case in cases:
        scores = Rouge(stemmer=case["stem"]).score([prediction(answers[case["line"]], targets[case["line"]])])
        assert round(scores[case["metric"]], 5) == case["fmeasure"], "published with five decimals"


@pytest.mark.slow
def test_mean_rouge_of_published_collections():
    cases = [c for c in vectors()["aggregate"]["cases"] if c["data"].startswith("target_large") and c["metric"] != "rougeLsum"]
    pairs = [prediction(answer, target) for answer, target in zip(lines("prediction_large.txt"), lines("target_large.txt"), strict=True)]
    for case in cases:
        assert Rouge(stemmer=case["stem"]).score(pairs)[case["metric"]] == pytest.approx(case["fmeasure"][1], abs=0.002)


def test_rouge_names_and_empty_answers():
    assert Rouge().score([prediction("", "some words")]) == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
