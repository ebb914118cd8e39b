"""Metrics on answers whose scores are known, against published vectors, and against second implementations."""

import json
import math
import random
import re
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.evaluate.metrics import (
    Bleu,
    Chrf,
    Classification,
    CopyRate,
    EosRate,
    ExactMatch,
    JsonValidity,
    Length,
    Novelty,
    Perplexity,
    Rouge,
    RunawayRate,
    TokenF1,
    ToolCalls,
)
from stages.evaluate.metrics.copy_rate import fragments
from tests.stages.evaluate.made import prediction, rows_of, values

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"
VECTORS = SHARED / "rouge_score_testdata"
SACREBLEU = SHARED / "sacrebleu_vectors"

WORDS = st.lists(st.sampled_from("a the red green dog".split()), max_size=8).map(" ".join)
PREDICTIONS = st.builds(prediction, st.text(max_size=20), st.text(max_size=20), st.booleans(), st.integers(0, 50))
EVERY = tuple(
    metric()
    for metric in (
        *(Bleu, Chrf, Classification, CopyRate, EosRate, ExactMatch),
        *(JsonValidity, Length, Novelty, Rouge, RunawayRate, TokenF1),
    )
)


def call(name="f", **arguments):
    return {"name": name, "arguments": arguments}


def test_calls_are_compared_as_calls():
    one, other = call(x=1, y=[{"a": 1, "b": None}]), {"arguments": {"y": [{"b": None, "a": 1}], "x": 1}, "name": "f"}
    pairs = [
        ([one], [other], True),
        ([one], [call(x=1)], True),
        ([call("g", x=1)], [call("f", x=1)], True),
        ([call(x=True)], [call(x=1)], True),
        ([one, other], [one], True),
        ([], [one], True),
        # A call that nobody wanted is wrong; where nobody wants one and there is none, nothing is measured.
        ([one], [], True),
        ([], [], True),
        (None, None, True),
        # An answer that never ended cannot match.
        ([one], [one], False),
    ]
    found = [prediction(ended=ended, calls=given, reference_calls=wanted) for given, wanted, ended in pairs]
    assert values(ToolCalls(), found) == {"tool_calls": 1 / 8, "tool_names": 3 / 8}


def test_calls_are_not_measured_where_no_reference_has_any():
    with pytest.raises(UserError, match="no reference of task 'words' calls a tool"):
        ToolCalls().measure([prediction(calls=[call()], reference_calls=[])])


def test_exact_match_forgives_white_space_at_the_ends_alone():
    answers = [prediction(" a\n", "a"), prediction("A", "a"), prediction("a b", "ab"), prediction("a", " a")]
    assert values(ExactMatch(), answers) == {"exact_match": 0.5}


def test_an_answer_that_never_ended_matches_nothing():
    assert values(ExactMatch(), [prediction(ended=False), prediction()]) == {"exact_match": 0.5}


def test_eos_rate_and_length():
    answers = [prediction(ended=True, tokens=3), prediction(ended=False, tokens=8), prediction(ended=True, tokens=0)]
    assert values(EosRate(), answers) == {"eos_rate": pytest.approx(2 / 3)}
    assert values(Length(), answers) == {"length": pytest.approx(11 / 3)}


def test_an_answer_runs_away_where_it_is_long_and_never_ends():
    answers = [prediction("b " * 9, "b b", ended=False), prediction("b " * 9, "b b"), prediction("b b b b", "b b", ended=False)]
    assert values(RunawayRate(), answers) == {"runaway_rate": pytest.approx(1 / 3)}
    assert values(RunawayRate(times=1.5), answers) == {"runaway_rate": pytest.approx(2 / 3)}


@settings(deadline=None)
@given(st.lists(PREDICTIONS, min_size=1, max_size=5))
def test_values_lie_in_their_range_and_do_not_depend_on_the_order(answers):
    for metric in EVERY:
        found = values(metric, answers)
        assert found == pytest.approx(values(metric, answers[::-1]), abs=1e-9)
        top = 100 + 1e-9 if metric.kind in ("bleu", "chrf") else 50 if metric.kind == "length" else 1 + 1e-9
        assert all(0 <= value <= top for value in found.values()), metric.kind
    assert values(ExactMatch(), answers)["exact_match"] <= values(EosRate(), answers)["eos_rate"]


@settings(deadline=None)
@given(st.lists(PREDICTIONS, min_size=1, max_size=4), st.integers(1, 3))
def test_a_row_that_counts_twice_is_a_row_that_stands_there_twice(answers, times):
    """What resampling rests on: the sums of statistics over any multiset of rows are the statistics of that multiset."""
    for metric in EVERY:
        for one, again in zip(metric.measure(answers), metric.measure(answers * times), strict=True):
            assert float(one.value(np.asarray(one.rows, float).sum(0) * times)) == pytest.approx(
                float(again.value(np.asarray(again.rows, float).sum(0))), abs=1e-9
            )


# ROUGE


def vectors():
    if not VECTORS.is_dir():
        pytest.skip("the published ROUGE test vectors are not on this machine")
    return json.loads((VECTORS / "expected.json").read_text("utf-8"))


def lines(name):
    return (VECTORS / name).read_text("utf-8").splitlines()


def test_rouge_of_published_strings():
    cases = vectors()["string_cases"]
    assert {case["metric"] for case in cases} >= {"rouge1", "rougeL", "rougeLsum"}
    for case in cases:
        found = values(Rouge(stemmer=case.get("stem", False)), [prediction(case["prediction"], case["target"])])
        assert found[case["metric"]] == pytest.approx(case["fmeasure"], abs=1e-9)


def test_rouge_of_published_lines():
    cases = vectors()["line_scores"]["cases"]
    targets, answers = lines("target.txt"), lines("prediction.txt")
    for case in cases:
        found = values(Rouge(stemmer=case["stem"]), [prediction(answers[case["line"]], targets[case["line"]])])
        assert round(found[case["metric"]], 5) == case["fmeasure"], "published with five decimals"


@pytest.mark.slow
def test_mean_rouge_of_published_collections():
    cases = [c for c in vectors()["aggregate"]["cases"] if c["data"].startswith("target_large") and c["metric"] != "rougeLsum"]
    pairs = [prediction(answer, target) for answer, target in zip(lines("prediction_large.txt"), lines("target_large.txt"), strict=True)]
    for case in cases:
        assert values(Rouge(stemmer=case["stem"]), pairs)[case["metric"]] == pytest.approx(case["fmeasure"][1], abs=0.002)


def test_rouge_names_and_empty_answers():
    assert values(Rouge(), [prediction("", "some words")]) == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0, "rougeLsum": 0.0}


# BLEU and chrF


def sacrebleu_vectors():
    if not SACREBLEU.is_dir():
        pytest.skip("sacrebleu's published test vectors are not on this machine")
    return json.loads((SACREBLEU / "vectors.json").read_text("utf-8"))


def pairs_of(case):
    """Answers and references of a case, None where it has several reference streams, which a row here has not."""
    references = case["refs"]
    if references and isinstance(references[0], list):
        if len(references) != 1:
            return None
        (references,) = references
    if len(case["hyps"]) != len(references):
        return None
    return [prediction(answer, reference) for answer, reference in zip(case["hyps"], references, strict=True)]


def test_bleu_of_published_corpora():
    published, checked = sacrebleu_vectors(), 0
    for case in published["raw_corpus_bleu"]["cases"]:
        if pairs := pairs_of(case):
            # sacrebleu's raw_corpus_bleu: words as they are, one hundredth in place of no match, orders that nothing has left out.
            metric = Bleu(tokenize="none", smooth="floor", smooth_value=0.01, effective_order=True)
            assert values(metric, pairs)["bleu"] / 100 == pytest.approx(case["expected"], abs=1e-8)
            checked += 1
    for case in published["effective_order"]["cases"]:
        metric = Bleu(tokenize="none", smooth="floor", smooth_value=0.01, effective_order=True)
        assert values(metric, pairs_of(case))["bleu"] / 100 == pytest.approx(case["expected"], abs=1e-8)
        checked += 1
    assert checked >= 5


def test_bleu_of_published_sentences():
    published = sacrebleu_vectors()["sentence_bleu"]
    for smooth, value, lowercase, tokenize, expected in published["cases"]:
        metric = Bleu(
            smooth=smooth,
            smooth_value=None if value is None else float(value),
            lowercase=lowercase,
            tokenize=tokenize,
            effective_order=True,
        )
        assert values(metric, [prediction(published["sys"], published["ref"])])["bleu"] == pytest.approx(expected, abs=1e-3)


def test_bleu_counts_what_is_published():
    (case,) = sacrebleu_vectors()["statistics"]
    (statistic,) = Bleu(tokenize="none").measure(pairs_of(case))
    assert list(statistic.rows[0][2:]) == [*case["expected"]["common"], *case["expected"]["total"]]


def test_chrf_of_published_corpora():
    published = sacrebleu_vectors()
    for section, smoothing in (("chrf", True), ("chrf_effective_order", False)):
        for case in published[section]["cases"]:
            found = values(Chrf(beta=3, eps_smoothing=smoothing), pairs_of(case))
            assert found["chrf"] == pytest.approx(case["expected"], abs=1e-4)
    for case in published["sentence_chrf"]["cases"]:
        found = values(Chrf(eps_smoothing=True), [prediction(case["hyp"], case["refs"][0])])
        assert found["chrf"] == pytest.approx(case["expected"], abs=1e-4)


def test_corpus_scores_equal_sacrebleus_own_and_say_how_they_were_made():
    from sacrebleu.metrics import BLEU, CHRF

    random.seed(3)
    texts = [" ".join(random.choices("the dog bit a man and ran far away .".split(), k=random.randint(1, 12))) for _ in range(40)]
    pairs = [prediction(answer, reference) for answer, reference in zip(texts[:20], texts[20:], strict=True)]
    for metric, reference in ((Bleu(), BLEU()), (Chrf(), CHRF()), (Chrf(word_order=2), CHRF(word_order=2))):
        expected = reference.corpus_score(texts[:20], [texts[20:]]).score
        assert values(metric, pairs)[metric.kind] == pytest.approx(expected, abs=1e-9)
        (statistic,) = metric.measure(pairs)
        assert statistic.signature == str(reference.get_signature()) and "version:" in statistic.signature


# Words


def squad_f1(answer, reference):
    """The official evaluation script of SQuAD 2.0, by its description."""

    def tokens(text):
        text = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    given, wanted = tokens(answer), tokens(reference)
    if not given or not wanted:
        return float(given == wanted)
    shared = sum(min(given.count(word), wanted.count(word)) for word in set(given))
    if not shared:
        return 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_token_f1_is_squads(answer, reference):
    assert values(TokenF1(), [prediction(answer, reference)])["token_f1"] == pytest.approx(squad_f1(answer, reference))


def test_token_f1_of_known_answers():
    assert values(TokenF1(), [prediction("The cat, sat!", "a cat sat down")])["token_f1"] == pytest.approx(0.8)
    assert values(TokenF1(articles=True), [prediction("the cat", "a cat")])["token_f1"] == pytest.approx(0.5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcx"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_classification_is_scikit_learns(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    answers, truths = zip(*pairs, strict=True)
    found = values(Classification(labels=("a", "b", "c")), [prediction(answer, truth) for answer, truth in pairs])
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truths, answers))
    expected = metrics.f1_score(truths, answers, labels=["a", "b", "c"], average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)


def test_labels_are_the_references_where_none_are_given_and_case_may_not_matter():
    answers = [prediction(" Sport ", "sport"), prediction("news", "news"), prediction("news", "sport", ended=False)]
    assert values(Classification(), answers)["accuracy"] == pytest.approx(1 / 3)
    assert values(Classification(case=False), answers) == {"accuracy": pytest.approx(2 / 3), "macro_f1": pytest.approx((2 / 3 + 1) / 2)}


def test_perplexity_is_per_token_over_all_rows():
    rows = [prediction(loss=3.0, loss_tokens=2), prediction(loss=1.0, loss_tokens=6)]
    assert values(Perplexity(), rows) == {"loss": 0.5, "perplexity": pytest.approx(math.exp(0.5))}


def coverage(source, text):
    """Share of the words of TEXT that lie in a run that SOURCE has too, from the definition: greedy, from the left, the longest."""
    covered, start = 0, 0
    while start < len(text):
        ends = range(len(text), start, -1)
        starts = range(len(source))
        size = next((end - start for end in ends if any(source[i : i + end - start] == text[start:end] for i in starts)), 0)
        covered += size
        start += max(size, 1)
    return covered / len(text) if text else 0.0


@settings(deadline=None)
@given(WORDS, WORDS)
def test_copy_rate_is_the_coverage_by_extractive_fragments(prompt, answer):
    found = values(CopyRate(), [prediction(answer, prompt=prompt)])["copy_rate"]
    assert found == pytest.approx(coverage(prompt.split(), answer.split()))


def test_short_stretches_may_not_count_as_copied():
    assert fragments("the red dog ran".split(), "a red dog sat the red dog ran".split()) == [2, 4]
    answer = prediction("red cat the dog ran", prompt="the dog ran to a red house")
    assert values(CopyRate(), [answer])["copy_rate"] == pytest.approx(0.8)
    assert values(CopyRate(words=2), [answer])["copy_rate"] == pytest.approx(0.6)


def test_novelty_counts_ngrams_that_the_prompt_lacks():
    answers = [prediction("red dog ran home", prompt="a red dog ran"), prediction("one", prompt="two")]
    assert values(Novelty(), answers) == {"novelty": pytest.approx(1 / 3)}
    assert values(Novelty(ngram=1), answers) == {"novelty": pytest.approx(2 / 5)}


@pytest.mark.parametrize(
    ("answer", "valid", "fits"),
    [
        ('{"name": "x", "count": 3}', 1, 1),
        ('{"name": "x"}', 1, 1),
        ('{"name": "x", "count": "3"}', 1, 0),
        ('{"name": "x", "count": 3.5}', 1, 0),
        ('{"name": "x", "other": 1}', 1, 0),
        ('{"count": 3}', 1, 0),
        ("[1, 2]", 1, 0),
        ('{"name": "x",}', 0, 0),
        ('{"name": NaN}', 0, 0),
        ("Sure! {}", 0, 0),
        ("", 0, 0),
    ],
)
def test_json_validity(answer, valid, fits):
    metric = JsonValidity(fields={"name": "string", "count": "integer"}, optional=("count",))
    assert values(metric, [prediction(answer)]) == {"json_rate": valid, "schema_rate": fits}
    assert values(JsonValidity(), [prediction(answer)]) == {"json_rate": valid}
    assert values(metric, [prediction(answer, ended=False)]) == {"json_rate": 0, "schema_rate": 0}


def test_json_may_have_more_fields_where_the_spec_says_so():
    metric = JsonValidity(fields={"name": "string", "model_config": "boolean"}, optional=("model_config",), extra=True)
    assert values(metric, [prediction('{"name": "x", "other": [1]}')])["schema_rate"] == 1


def test_all_rows_are_measured():
    answers = rows_of(["a", "b", "c"], ["a", "b", "x"])
    assert all(len(statistic.rows) == 3 for metric in EVERY for statistic in metric.measure(answers))


SCRIPTS = {
    "Chinese": ("今天天气很好", "明天天气很好"),
    "Japanese": ("今日は天気がいい", "明日は天気がいい"),
    "Thai": ("วันนี้อากาศดี", "พรุ่งนี้อากาศดี"),
    "Hindi": ("आज मौसम अच्छा है", "कल मौसम अच्छा है"),
    "Arabic": ("الطقس جيد اليوم", "الطقس جيد غدا"),
    "Russian": ("сегодня хорошая погода", "завтра хорошая погода"),
    "Korean": ("오늘 날씨가 좋다", "내일 날씨가 좋다"),
    "German": ("Überall größere Bäume", "Nirgends größere Bäume"),
    "Vietnamese": ("Hôm nay trời đẹp", "Ngày mai trời đẹp"),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("segmentation", ["unicode", "characters"])
def test_metrics_of_words_see_every_script(script, segmentation):
    same, other = SCRIPTS[script]
    for metric, name in ((Rouge(segmentation=segmentation), "rouge1"), (TokenF1(segmentation=segmentation), "token_f1")):
        assert values(metric, [prediction(same, same)])[name] == 1
        assert 0.2 < values(metric, [prediction(same, other)])[name] < 1
        assert values(metric, [prediction(same, "완전히")])[name] < 0.2 or script == "Korean"
        assert metric.blind([prediction(same, other)]) == 0
    copied = [prediction(same, prompt=f"{other} 1")]
    assert 0.2 < values(CopyRate(segmentation=segmentation), copied)["copy_rate"] < 1
    assert 0 < values(Novelty(segmentation=segmentation), copied)["novelty"] < 1
    assert values(RunawayRate(segmentation=segmentation), [prediction(same * 9, same, ended=False)]) == {"runaway_rate": 1}


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("第3章", "图3"), ("我有2只猫", "他买2本书"), ("2024年很好", "2024년"), ("версия 3", "глава 3"), ("हाथी 5", "घोड़ा 5")],
)
def test_different_texts_that_share_a_number_are_not_the_same(answer, reference):
    assert values(Rouge(segmentation="published"), [prediction(answer, reference)])["rouge1"] == 1, "the fault that is mended"
    assert values(Rouge(), [prediction(answer, reference)])["rouge1"] < 1


ENGLISH = st.text(st.sampled_from("abcdeABC theanrs.,'’\"_-0123\n"), max_size=60)


@settings(deadline=None, max_examples=200)
@given(ENGLISH, ENGLISH)
def test_english_is_measured_as_published(answer, reference):
    answers = [prediction(answer, reference, prompt=reference)]
    plain = [prediction(answer.replace("’", "'"), reference.replace("’", "'"), prompt=reference)]
    for stemmer in (False, True):
        assert values(Rouge(stemmer=stemmer), plain) == values(Rouge(stemmer=stemmer, segmentation="published"), plain)
    assert values(TokenF1(), answers) == values(TokenF1(segmentation="published"), answers)
    for metric in (CopyRate, Novelty, RunawayRate):
        assert values(metric(), answers) == values(metric(segmentation="published"), answers)


def test_typographic_english_is_measured_as_published():
    texts = ["“It’s here” — she said… 50€", "It's “here” – he said", "a naïve café", "Beyoncé sang “Halo”."]
    pairs = [prediction(a, b) for a in texts for b in texts]
    assert values(TokenF1(), pairs) == values(TokenF1(segmentation="published"), pairs)
    rouge = [prediction(a, b) for a in texts[:2] for b in texts[:2]]
    assert values(Rouge(), rouge) == values(Rouge(segmentation="published"), rouge)


@pytest.mark.parametrize(
    ("metric", "answer", "rows"),
    [
        (Rouge(segmentation="published"), "今天", 1),
        (Rouge(segmentation="published"), "café", 1),
        (Rouge(), "今天 café हाथी", 0),
        (Rouge(), "👍", 1),
        (Rouge(), "", 0),
        (TokenF1(segmentation="published"), "今天天气", 1),
        (TokenF1(), "今天天气", 0),
        (TokenF1(), "…", 1),
        (CopyRate(), "👍👎", 1),
        (Novelty(), "¡!", 1),
        (Bleu(), "今天天气", 1),
        (Bleu(tokenize="zh"), "今天天气", 0),
        (Bleu(), "plain", 0),
    ],
)
def test_rows_that_a_metric_cannot_see_are_counted(metric, answer, rows):
    assert metric.blind([prediction(answer, "a"), prediction("a", "b")]) == rows


INVALID = ['{"x": NaN}', '{"x": Infinity}', '{"x": -Infinity}', '{"x": 1e999}', '{"x": 1, "x": 2}', '{"x": 1, "y": {"a": 1, "a": 1}}']


@pytest.mark.parametrize("answer", [*INVALID, "NaN", '{"x": [NaN]}', '{"x": -1e400}', "{'x': 1}", '{"x": 1}, ', "[" * 100_000, "9" * 5000])
def test_what_is_no_json_is_no_answer_of_a_form(answer):
    metric = JsonValidity(fields={"x": "number", "y": "object"}, optional=("y",), extra=True)
    assert values(metric, [prediction(answer)]) == {"json_rate": 0, "schema_rate": 0}


REFERENCES = st.lists(st.text(st.sampled_from("ab c今天."), min_size=1, max_size=12), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text(st.sampled_from("ab c今天."), max_size=12), REFERENCES), min_size=1, max_size=4))
def test_several_references_are_taken_as_each_library_defines(rows):
    answers = [prediction(answer, several[0], references=tuple(several)) for answer, several in rows]
    for metric in (ExactMatch(), TokenF1(), Rouge()):
        best = [
            {name: max(values(metric, [prediction(answer, one)])[name] for one in several) for name in values(metric, [prediction()])}
            for answer, several in rows
        ]
        assert values(metric, answers) == pytest.approx({name: np.mean([row[name] for row in best]) for name in best[0]})
    from sacrebleu.metrics import BLEU, CHRF

    most = max(len(several) for _, several in rows)
    streams = [[several[n] if n < len(several) else None for _, several in rows] for n in range(most)]
    for metric, theirs in ((Bleu(), BLEU()), (Chrf(), CHRF()), (Chrf(word_order=2), CHRF(word_order=2))):
        wanted = theirs.corpus_score([answer for answer, _ in rows], streams)
        assert values(metric, answers)[metric.kind] == pytest.approx(wanted.score)


def test_a_label_is_right_where_any_reference_names_it():
    rows = [prediction("b", "a", references=("a", "b")), prediction("c", "a", references=("a", "b")), prediction("a", "a")]
    assert values(Classification(), rows)["accuracy"] == pytest.approx(2 / 3)
    assert values(RunawayRate(), [prediction("a " * 5, "a", ended=False, references=("a", "a a a"))]) == {"runaway_rate": 0}
    assert str(Bleu().measure(rows)[0].signature).startswith("nrefs:var")
