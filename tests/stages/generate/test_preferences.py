"""Pairs of answers: the shapes in which data sets hold them become one form; sides that cannot be compared are located."""

import json

import pytest

from engine.core.errors import Location, UserError
from stages.generate import Parameters
from stages.generate.body import run
from stages.generate.cleaning.duplicates import Duplicates
from stages.generate.cleaning.length import Length
from stages.generate.layout import Layout
from stages.generate.sources.jsonl import Jsonl
from stages.generate.teachers.gold import Gold
from stages.process.job import Job
from stages.rows.rows import read_rows

WHERE = Location("rows.jsonl", 3)
ASK, GOOD, BAD = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}, {"role": "assistant", "content": "B"}
SYSTEM = {"role": "system", "content": "S"}


def normalised(row, kind="auto"):
    return Layout(kind=kind).normalised(row, WHERE)


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, [ASK, GOOD]),
        ({"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]}, [ASK, GOOD]),
        ({"prompt": [SYSTEM, ASK], "chosen": "A", "rejected": "B"}, [SYSTEM, ASK, GOOD]),
        ({"chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, [ASK, GOOD]),
        ({"prompt": "Q", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, [ASK, GOOD]),
        ({"instruction": "Q", "input": "", "chosen": "A", "rejected": "B", "system": "S"}, [SYSTEM, ASK, GOOD]),
        ({"instruction": "Q", "input": "C", "chosen": "A", "rejected": "B"}, [{"role": "user", "content": "Q\n\nC"}, GOOD]),
        (
            {
                "conversations": [{"from": "human", "value": "Q"}],
                "chosen": {"from": "gpt", "value": "A"},
                "rejected": {"from": "gpt", "value": "B"},
            },
            [ASK, GOOD],
        ),
        ({"question": "Q", "chosen": "A", "rejected": "B", "history": [["Q", "A"]]}, [ASK, GOOD, ASK, GOOD]),
    ],
    ids=["texts", "messages", "system", "conversations", "ultrafeedback", "alpaca", "alpaca-input", "share-gpt", "history"],
)
def test_every_shape_becomes_a_conversation_with_the_chosen_answer_and_a_rejected_one(row, messages):
    name, found = normalised(row)
    assert name == "preference" and found["messages"] == messages and found["rejected"] == BAD


def test_a_row_with_an_answer_of_its_own_is_a_pair_only_on_request():
    row = {"prompt": "Q", "completion": "A", "chosen": "A", "rejected": "B"}
    assert normalised(row)[0] == "prompt_completion"
    assert normalised(row, "preference")[1]["rejected"] == BAD


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": None}, "this pair has no rejected answer"),
        ({"prompt": "Q", "chosen": "", "rejected": "B"}, "this pair has no chosen answer"),
        ({"chosen": "A", "rejected": "B"}, "this pair has two answers but no prompt"),
        ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "chosen and rejected of this pair are equal"),
        (
            {"chosen": [ASK, GOOD], "rejected": [{"role": "user", "content": "Else"}, BAD]},
            r"answer different prompts: they differ from messages\[0\] on",
        ),
        ({"chosen": [ASK, GOOD, ASK, GOOD], "rejected": [ASK, BAD]}, r"answer different prompts: they differ from messages\[1\] on"),
        ({"chosen": [ASK, GOOD, ASK], "rejected": [ASK, BAD]}, "'chosen' of this pair does not end with an answer"),
        ({"prompt": "Q", "chosen": 3, "rejected": "B"}, "'chosen' of this pair must be text, a message or messages"),
    ],
)
def test_sides_that_cannot_be_compared_are_located(row, what):
    with pytest.raises(UserError, match=what) as caught:
        normalised(row)
    assert caught.value.problems[0].where == WHERE


def generate(folder, rows, **values):
    """Metrics and rows of a task with these source rows."""
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "out").mkdir()
    parameters = Parameters(**({"source": Jsonl(path="data.jsonl"), "layout": Layout(kind="preference")} | values))
    metrics = run(parameters, Job("generate-x", {"source": folder / "data.jsonl"}, folder / "out", None, folder))
    return metrics, list(read_rows(folder / "out/rows.jsonl"))


def test_both_answers_of_a_prompt_are_one_row_and_equal_prompts_one_group(tmp_path):
    rows = [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": "A", "rejected": "C"},
        {"prompt": [SYSTEM, ASK, GOOD, ASK], "chosen": "A", "rejected": "B"},
    ]
    metrics, (first, second, third) = generate(tmp_path, rows)
    assert metrics["layouts"] == {"preference": 3}
    assert (first.prompt, first.completion, first.rejected) == ("Q", "A", "B")
    assert first.group == second.group and first.id != second.id, "both answers decide the id, the prompt decides the split"
    assert third.rejected == BAD and third.with_rejected().messages[-1] == BAD
    assert third.with_rejected().messages[:-1] == third.messages[:-1]


def test_the_rules_of_cleaning_hold_for_both_answers(tmp_path):
    rows = [
        {"prompt": "one", "chosen": "A", "rejected": "B"},
        {"prompt": "two", "chosen": "B", "rejected": "B " * 9},
        {"prompt": "three", "chosen": "A " * 9, "rejected": "B"},
        {"prompt": "four", "chosen": "C", "rejected": "  "},
        {"prompt": "one", "chosen": "A", "rejected": "C"},
    ]
    rules = (Length(of="completion", max_words=5), Duplicates(of="completion"))
    metrics, found = generate(tmp_path, rows, cleaning=rules)
    assert [row.prompt for row in found] == ["one"]
    assert metrics["left_out"] == {
        "duplicate": 1,
        "empty rejected answer": 1,
        "more than 5 words": 1,
        "rejected answer: more than 5 words": 1,
    }


def test_a_prefix_and_a_prompt_of_the_task_stand_before_both_answers(tmp_path):
    rows = [{"prompt": "Q", "chosen": "A", "rejected": "B"}]
    _, (row,) = generate(tmp_path, rows, answer_prefix=" ", teacher=Gold(column="chosen"), prompts=("Say: {{ prompt }}",))
    assert (row.prompt, row.completion, row.rejected) == ("Say: Q", " A", " B")


def test_answers_that_were_judged_alone_have_their_label_in_every_shape(tmp_path):
    """TRL's unpaired shape as text and as messages, and LLaMA-Factory's with an instruction and with conversations."""
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    rows = [
        {"prompt": "Q", "completion": "A", "label": True},
        {"prompt": [ASK], "completion": [BAD], "label": False},
        {"instruction": "Q", "input": "", "output": "A", "label": True},
        {"conversations": turns, "label": False},
        {"messages": [SYSTEM, ASK, GOOD], "label": True},
        {"prompt": "Q", "completion": "A", "label": "0"},
    ]
    metrics, found = generate(tmp_path, rows, layout=Layout(kind="unpaired_preference"))
    assert metrics["layouts"] == {"unpaired_preference": 6}
    assert [row.desirable for row in found] == [True, False, True, False, True, False]
    assert found[0].completion == "A" and found[0].group == found[5].group and found[0].id != found[5].id, "the label decides the id"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": "Q", "completion": "A"}, "does not say whether its answer is desirable: it has no column 'label'"),
        ({"prompt": "Q", "completion": "A", "label": None}, "its label is null"),
        ({"prompt": "Q", "completion": "A", "label": "good"}, "its label is 'good'"),
        ({"prompt": "Q", "completion": "A", "label": 0.5}, "its label is 0.5"),
        ({"prompt": "Q", "completion": "A", "label": [True]}, r"its label is \[true\]"),
        ({"messages": [ASK, GOOD, ASK], "label": True}, "this row does not end with an answer"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "label": True}, "this row is not of layout 'unpaired_preference'"),
        ({"text": "A", "label": True}, "this row is not of layout 'unpaired_preference'"),
    ],
)
def test_labels_that_are_no_labels_are_located(row, what):
    with pytest.raises(UserError, match=what) as caught:
        Layout(kind="unpaired_preference").normalised(row, WHERE)
    assert caught.value.problems[0].where == WHERE


def test_a_rejected_answer_that_was_cut_off_stays_marked_and_changes_no_id(tmp_path):
    pair = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    for folder, rows in (("marked", [pair | {"rejected_ended": False}]), ("plain", [pair, {**pair, "rejected_ended": True}])):
        (tmp_path / folder).mkdir()
        _, found = generate(tmp_path / folder, rows)
        assert [row.rejected_ended for row in found] == [folder == "plain"] * len(rows)
        assert found[0].with_rejected().ended is (folder == "plain") and found[0].ended
    assert len({next(read_rows(tmp_path / folder / "out/rows.jsonl")).id for folder in ("marked", "plain")}) == 1
    asked = {"prompt": [SYSTEM, ASK, GOOD, ASK], "chosen": "A", "rejected": "B", "rejected_ended": False}
    (tmp_path / "asked").mkdir()
    _, (row,) = generate(tmp_path / "asked", [asked])
    assert not row.rejected_ended and not row.with_rejected().ended
