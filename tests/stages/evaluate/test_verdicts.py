"""Win rates: whose answer a judge prefers in both orders, with ties, intervals and a test; what it does not say is counted."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.evaluate import Parameters, Statistics
from stages.evaluate.body import run
from stages.evaluate.metrics import ExactMatch
from stages.generate.sources.duels import Duels
from stages.rows.jsonl import write_rows
from tests.stages.evaluate.made import rows_of, write
from tests.stages.initialize.tiny import make_job

PLACES = ("first", "second")
said = st.sampled_from([*PLACES, "tie"]) | st.none()
"""What the judge says of a row in one order; None: nothing valid."""


def measured(folder: Path, verdicts, equal: int = 0, model: str = "mine"):
    """Metrics and the comparison of the win rate; VERDICTS are pairs: what is said with our answer first, and with ours second.

    EQUAL rows more have two equal answers.
    """
    folder.mkdir(exist_ok=True)
    count = len(verdicts) + equal
    ours, theirs = (
        rows_of([f"{word} {n}" for n in range(len(verdicts))] + ["same"] * equal, ["yes"] * count) for word in ("mine", "theirs")
    )
    lines = [
        {"carried": {"id": ours[number].id, "ours": place}, "completion": json.dumps({"reason": "so", "better": better})}
        for number, both in enumerate(verdicts)
        for place, better in zip(PLACES, both, strict=True)
        if better is not None
    ]
    write_rows(folder / "verdicts.jsonl", lines)
    inputs = {
        "predictions/words": write(folder / "ours.jsonl", ours),
        "compare/other/words": write(folder / "theirs.jsonl", theirs),
        "versus/other/words": folder / "verdicts.jsonl",
    }
    job = make_job(folder / "job", inputs, plot=True)
    statistics = Statistics(resamples=500)
    found = run(Parameters(model=model, tasks=("words",), metrics=(ExactMatch(),), compare=("other",), statistics=statistics), job)
    rows = json.loads((job.output / "comparisons.json").read_text())["comparisons"]
    return found["words"]["versus"]["other"], next((row for row in rows if row["metric"] == "win_rate"), None)


@settings(max_examples=25)
@given(st.lists(st.tuples(said, said), min_size=1, max_size=8), st.integers(0, 2))
def test_every_row_is_won_lost_tied_or_not_judged_and_the_other_model_has_the_rest(tmp_path_factory, verdicts, equal):
    folder = tmp_path_factory.mktemp("wins")
    counts, row = measured(folder / "a", verdicts, equal)
    judged = [both for both in verdicts if None not in both]
    assert counts["wins"] + counts["losses"] + counts["ties"] == len(judged) + equal and counts["unjudged"] == len(verdicts) - len(judged)
    assert counts["undecided_by_order"] == sum(both in (("first", "first"), ("second", "second")) for both in judged)
    mirrored, _ = measured(
        folder / "b", [tuple({"first": "second", "second": "first"}.get(one, one) for one in both) for both in verdicts], equal
    )
    assert (counts["wins"], counts["losses"]) == (mirrored["losses"], mirrored["wins"])
    if not judged and not equal:
        assert row is None
        return
    score = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5)}
    total = sum((score[one][0] + score[two][1]) / 2 for one, two in judged) + equal / 2
    rate = total / (len(judged) + equal)
    assert counts["value"] == pytest.approx(rate, abs=1e-6) and counts["low"] <= counts["value"] <= counts["high"]
    assert row["difference"] == pytest.approx(2 * rate - 1, abs=2e-6) and row["other_value"] == pytest.approx(1 - rate, abs=1e-6)


def test_a_judge_that_always_prefers_a_place_says_nothing_and_one_that_prefers_a_model_is_believed(tmp_path):
    counts, row = measured(tmp_path / "place", [("first", "first")] * 20)
    assert counts["value"] == 0.5 and counts["undecided_by_order"] == 20 and not row["real"]
    counts, row = measured(tmp_path / "model", [("first", "second")] * 20)
    assert counts["value"] == 1.0 and counts["low"] < 0.9, "twenty wins of twenty are no certainty"
    assert row["real"] and row["p"] < 0.01


def test_both_orders_of_answers_that_differ_are_shown_and_equal_ones_are_not(tmp_path):
    ours, theirs = rows_of(["a", "same"], ["a", "a"]), rows_of(["b", "same"], ["a", "a"])
    write_rows(tmp_path / "rows.jsonl", [{"id": one.id, "carried": {"topic": "x"}} for one in ours])
    files = [write(tmp_path / "ours.jsonl", ours), write(tmp_path / "theirs.jsonl", theirs), tmp_path / "rows.jsonl"]
    shown = [row for _, row in Duels(task="words").read(files)]
    assert [(row["ours"], row["first"], row["second"], row["fields"]) for row in shown] == [
        ("first", "a", "b", {"topic": "x"}),
        ("second", "b", "a", {"topic": "x"}),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ({"carried": {"id": "row-0"}, "completion": "{}"}, "this line is not a verdict"),
        ({"carried": {"id": "row-0", "ours": "first"}, "completion": '{"better": "third"}'}, "better must be first, second or tie"),
        ({"carried": {"id": "row-7", "ours": "first"}, "completion": '{"better": "tie"}'}, "row row-7 is judged here but is not among"),
    ],
)
def test_files_of_other_verdicts_are_located(tmp_path, line, what):
    write_rows(tmp_path / "verdicts.jsonl", [line])
    inputs = {
        "predictions/words": write(tmp_path / "ours.jsonl", rows_of(["a"], ["a"])),
        "compare/other/words": write(tmp_path / "theirs.jsonl", rows_of(["b"], ["a"])),
        "versus/other/words": tmp_path / "verdicts.jsonl",
    }
    with pytest.raises(UserError, match=what):
        run(
            Parameters(model="mine", tasks=("words",), metrics=(ExactMatch(),), compare=("other",)),
            make_job(tmp_path / "job", inputs, plot=True),
        )
