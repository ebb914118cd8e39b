"""pair: what becomes a pair of answers, and what does not; the better one by the scores of the spec, whoever gave it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import Location, UserError
from stages.evaluate.metrics import ExactMatch, JsonValidity, JudgeScores, Length, TokenF1, UnitTests
from stages.generate.layout import Layout
from stages.generate.sources.best_of import BestOf
from stages.generate.sources.pairs import Pairs
from stages.pair import Criterion, Parameters
from stages.pair.body import run
from stages.process.job import Job
from stages.rows.jsonl import write_rows
from stages.rows.prediction import Prediction
from stages.rows.predictions import write_predictions

EXACT = Criterion(metric=ExactMatch(), value="exact_match")
BRIEF = Criterion(metric=Length(), value="length", weight=-0.01)
OVERLAP = Criterion(metric=TokenF1(), value="token_f1")
SPLITS = ("train", "validation")

said = st.tuples(st.sampled_from(["a", " a", "b", "a b", ""]), st.booleans())
"""An answer, and whether it ended."""
answers = st.lists(st.tuples(st.sampled_from(SPLITS), st.lists(said, min_size=3, max_size=3)), min_size=1, max_size=4)
"""For each prompt its split, and the answers of three samples."""


def answered(row: str, text: str | None, ended: bool = True, reference: str | None = "a", **more: Any) -> Prediction:
    tokens = len((text or "").split())
    return Prediction("ask", row, f"prompt {row}", reference, text, "stop" if ended else "length", tokens, **more)


def paired(folder: Path, rows: dict[str, list[dict[str, Any]]], samples: dict[str, list[Prediction]], judged=None, **parameters: Any):
    """What the step returns, its pairs and its ranked answers."""
    folder.mkdir(exist_ok=True)
    output = folder / "out"
    output.mkdir()
    inputs = {}
    for split in SPLITS:
        inputs[f"rows/{split}"] = folder / f"{split}.jsonl"
        write_rows(inputs[f"rows/{split}"], rows.get(split, []))
    for number, (role, predictions) in enumerate(samples.items()):
        inputs[f"answers/{role}"] = folder / f"{number}.jsonl"
        write_predictions(inputs[f"answers/{role}"], predictions)
        if judged:
            inputs[f"judge/answers/{role}"] = folder / f"judged-{number}.jsonl"
            write_rows(inputs[f"judge/answers/{role}"], judged[role])
    metrics = run(Parameters(task="ask", **{"scores": (EXACT, BRIEF), **parameters}), Job("pair-x", inputs, output, None, folder))
    return metrics, *([json.loads(line) for line in (output / name).read_text().splitlines()] for name in ("pairs.jsonl", "answers.jsonl"))


def text_rows(prompts) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, (split, _) in enumerate(prompts):
        rows.setdefault(split, []).append({"id": f"r{number}", "group": f"g{number}", "prompt": f"prompt r{number}", "completion": "a"})
    return rows


@settings(max_examples=40)
@given(answers, st.sampled_from(["best_worst", "all"]), st.sampled_from([0.0, 0.5]))
def test_the_better_answer_is_chosen_whoever_gave_it_and_what_makes_no_pair_is_counted(tmp_path_factory, prompts, combine, margin):
    rows = text_rows(prompts)
    samples = [[answered(f"r{number}", *given[sample]) for number, (_, given) in enumerate(prompts)] for sample in range(3)]
    split_of = {f"r{number}": split for number, (split, _) in enumerate(prompts)}
    folder = tmp_path_factory.mktemp("pair")

    def made(name, *order):
        roles = {"0/one/0": order[0], "0/one/1": order[1], "1/two/0": order[2]}
        return paired(folder / name, rows, {role: samples[n] for role, n in roles.items()}, combine=combine, min_margin=margin)

    found, otherwise = made("a", 0, 1, 2), made("b", 2, 0, 1)
    metrics, pairs, ranked = found
    for one in pairs:
        number = int(one["row"][1:])
        texts = [text for text, _ in prompts[number][1]]
        assert one["split"] == split_of[one["row"]] and one["group"] == f"g{number}" and one["prompt"] == f"prompt r{number}"
        assert one["chosen"] in texts and one["rejected"] in texts and one["chosen"].strip() != one["rejected"].strip()
        assert (one["chosen"], True) in prompts[number][1], "an answer that was cut off is never chosen"
        ended = [wrote_end for text, wrote_end in prompts[number][1] if text.strip() == one["rejected"].strip()]
        assert one.get("rejected_ended", True) is any(ended), "a rejected answer that was cut off is marked"
        assert one["margin"] == pytest.approx(one["chosen_score"] - one["rejected_score"]) and one["margin"] > 0 and one["margin"] >= margin
    of = Counter(one["row"] for one in pairs)
    assert metrics["pairs"] == len(pairs) and len(of) + sum(metrics["left_out"].values()) == metrics["prompts"] == len(prompts)
    assert combine == "all" or max(of.values(), default=1) == 1
    assert {(one["row"], one["rank"]) for one in ranked} == {
        (row, rank) for row, count in Counter(one["row"] for one in ranked).items() for rank in range(1, count + 1)
    }
    plain = [[(one["row"], one["chosen"].strip(), one["rejected"].strip()) for one in made] for made in (pairs, otherwise[1])]
    assert plain[0] == plain[1], "neither the order of models nor that of samples prefers an answer"


def test_conversations_stay_conversations_with_tools_and_reasoning_where_the_layout_reads_them(tmp_path):
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q"}]
    tools = [{"type": "function", "function": {"name": "look"}}]
    rows = {"train": [{"id": "r", "group": "g", "messages": [*asked, {"role": "assistant", "content": "a"}], "tools": tools}]}
    samples = {"0/m/0": [answered("r", "a", reasoning="<think>so</think>")], "0/m/1": [answered("r", "b")]}
    _, (pair,), ranked = paired(tmp_path / "x", rows, samples)
    name, read = Layout(kind="preference").normalised(pair, Location("pairs.jsonl", 1))
    assert name == "preference" and read["tools"] == tools
    assert read["messages"] == [*asked, {"role": "assistant", "content": "a", "reasoning_content": "so"}]
    assert read["rejected"]["content"] == "b"
    best, second = ranked
    assert Layout().normalised(best, Location("answers.jsonl", 1))[1]["messages"] == read["messages"] and second["rank"] == 2


def test_scores_are_sums_of_metrics_rules_and_judgements(tmp_path):
    rows = text_rows([("train", [])])
    samples = {f"0/m/{n}": [answered("r0", text)] for n, text in enumerate(["a", '{"k": 1}', "c"])}
    judgements = {role: [{"carried": {"id": "r0"}, "completion": f'{{"score": {n + 3}}}'}] for n, role in enumerate(samples)}
    judgements["0/m/2"] = []
    judge = JudgeScores(scores=("score",), lowest=1, highest=5)
    scores = (
        Criterion(metric=judge, value="judge_score"),
        Criterion(metric=JsonValidity(fields={"k": "integer"}), value="schema_rate", weight=0.5),
        Criterion(metric=TokenF1(), value="token_f1", weight=2.0),
    )
    metrics, (pair,), _ = paired(tmp_path / "x", rows, samples, judgements, scores=scores)
    assert (pair["chosen"], pair["chosen_score"]) == ("a", 3 + 2.0) and (pair["rejected"], pair["rejected_score"]) == ('{"k": 1}', 4 + 0.5)
    assert metrics["answers"] == {"read": 3, "not judged": 1} and metrics["models"]["m"]["answers"] == 2


def test_code_is_scored_by_its_tests(tmp_path):
    rows, tests = text_rows([("train", [])]), "assert double(2) == 4 and double(0) == 0"
    said = ["def double(x): return x * 2", "def double(x): return x + 2", "def double(x): return x +"]
    samples = {f"0/m/{n}": [answered("r0", text, reference=tests)] for n, text in enumerate(said)}
    scores = (Criterion(metric=UnitTests(isolation="limits"), value="unit_tests"),)
    _, pairs, _ = paired(tmp_path / "x", rows, samples, scores=scores, combine="all")
    assert {(pair["chosen"], pair["rejected"]) for pair in pairs} == {(said[0], said[1]), (said[0], said[2])}


def test_answers_that_cannot_be_scored_are_located(tmp_path):
    rows, samples = text_rows([("train", [])]), {"0/m/0": [answered("r0", "a", reference=None)]}
    with pytest.raises(UserError, match=r"metric 'exact_match' needs references, and row r0 has none"):
        paired(tmp_path / "x", rows, samples)
    with pytest.raises(UserError, match=r"metric 'token_f1' has no value 'rouge9'"):
        paired(tmp_path / "y", rows, {"0/m/0": [answered("r0", "a")]}, scores=(Criterion(metric=TokenF1(), value="rouge9"),))


def test_best_of_takes_the_best_answers_that_are_good_enough(tmp_path):
    rows = text_rows([("train", []), ("train", [])])
    samples = {"0/m/0": [answered("r0", "a"), answered("r1", "b b")], "0/m/1": [answered("r0", "b"), answered("r1", "b b b")]}
    paired(tmp_path / "x", rows, samples)
    file = tmp_path / "x/out/answers.jsonl"

    def read(**options):
        return [row["completion"] for _, row in BestOf(pairs="x", **options).read([file])]

    assert read() == ["a", "b b"] and read(n=2) == ["a", "b", "b b", "b b b"] and read(n=9, min_score=0.5) == ["a"]


def test_answers_without_a_pair_are_still_ranked_and_only_who_reads_pairs_is_told(tmp_path):
    """A model that is right every time: its answers pass for rejection sampling, and there is nothing to prefer."""
    rows = text_rows([("train", []), ("train", [])])
    metrics, pairs, ranked = paired(tmp_path / "x", rows, {"0/m/0": [answered("r0", "a"), answered("r1", "a")]}, scores=(EXACT,))
    assert (metrics["pairs"], metrics["left_out"], metrics["margin"]) == (0, {"with one distinct answer": 2}, None)
    assert pairs == [] and [one["score"] for one in ranked] == [1.0, 1.0]
    assert len(list(BestOf(pairs="x", min_score=1.0).read([tmp_path / "x/out/answers.jsonl"]))) == 2
    with pytest.raises(UserError, match=r"\[pairs.x\] has no pairs") as caught:
        list(Pairs(pairs="x").read([tmp_path / "x/out/pairs.jsonl"]))
    assert "metrics/pair-x.json counts the reasons" in caught.value.problems[0].hint


def test_an_answer_that_several_models_gave_is_counted_for_each(tmp_path):
    rows = text_rows([("train", [])])
    samples = {"0/one/0": [answered("r0", "a")], "1/two/0": [answered("r0", "a ")], "1/two/1": [answered("r0", "b")]}
    metrics, (pair,), _ = paired(tmp_path / "x", rows, samples, scores=(EXACT,))
    assert metrics["models"] == {
        "one": {"answers": 1, "score": 1.0, "chosen": 1, "rejected": 0},
        "two": {"answers": 2, "score": 0.5, "chosen": 1, "rejected": 1},
    }
    assert (pair["chosen_of"], pair["rejected_of"]) == (0, 1)


@pytest.mark.parametrize(
    ("given", "margin", "reason"),
    [
        ([("a", True), ("b", True)], 0.0, None),
        ([("a", False), ("b", True)], 0.0, "with better answers cut off"),
        ([("a", False), ("b", False)], 0.0, "with no answer that ended"),
        ([("c", True), ("b", True)], 0.0, "tied"),
        ([("a", True), ("b", True)], 1.5, "within min_margin"),
        ([("a", False), ("b", True)], 1.5, "within min_margin"),
        ([("a", True)], 0.0, "with one distinct answer"),
        ([("", True)], 0.0, "without a usable answer"),
    ],
)
def test_why_a_prompt_has_no_pair(tmp_path, given, margin, reason):
    samples = {f"0/m/{number}": [answered("r0", *one)] for number, one in enumerate(given)}
    metrics, _, _ = paired(tmp_path / "x", text_rows([("train", [])]), samples, scores=(OVERLAP,), min_margin=margin)
    assert metrics["left_out"] == ({reason: 1} if reason else {})
