"""Layouts of conversations: each is recognised and becomes one form; real data sets pass through the step."""

from pathlib import Path

import pytest

from engine.errors import Location, UserError
from stages.common.job import Job
from stages.common.jsonl import read_objects, write_rows
from stages.common.rows import read_rows
from stages.generate import Parameters
from stages.generate.body import run
from stages.generate.layout import Layout
from stages.generate.sources.json import Json
from stages.generate.sources.jsonl import Jsonl
from stages.generate.teachers.gold import Gold

DATA = Path(__file__).parents[3] / "../shared/data"
WHERE = Location("rows", 3)
CALLED = '{"name": "f", "arguments": {"x": 1}}'
ASK, SAY = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]}


def normalised(row, kind="auto"):
    return Layout(kind=kind).normalised(row, WHERE)


@pytest.mark.parametrize(
    ("row", "name", "messages"),
    [
        ({"messages": [{"role": "developer", "content": "S"}, ASK, SAY]}, "messages", [{"role": "system", "content": "S"}, ASK, SAY]),
        ({"messages": [ASK, {"role": "assistant", "content": [{"type": "text", "text": "A"}]}]}, "messages", [ASK, SAY]),
        ({"messages": [ASK, {**SAY, "weight": 0}, ASK, SAY]}, "messages", [ASK, {**SAY, "train": False}, ASK, SAY]),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, "conversations", [ASK, SAY]),
        ({"conversation": [ASK, SAY], "system": "S"}, "conversations", [{"role": "system", "content": "S"}, ASK, SAY]),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Q"},
                    {"from": "function_call", "value": CALLED},
                ]
            },
            "conversations",
            [ASK, CALL],
        ),
        ({"instruction": "Q", "input": "", "output": "A"}, "instruction", [ASK, SAY]),
        ({"instruction": "Q", "context": "C", "response": "A"}, "instruction", [{"role": "user", "content": "Q\n\nC"}, SAY]),
        ({"instruction": "Q", "instances": [{"input": "", "output": "A"}]}, "instruction", [ASK, SAY]),
        ({"prompt": "Q", "completion": "A"}, "prompt_completion", [ASK, SAY]),
        ({"question": "Q", "answer": "A", "id": 1}, "prompt_completion", [ASK, SAY]),
        ({"prompt": [ASK], "completion": [SAY]}, "prompt_completion", [ASK, SAY]),
        ({"text": "A"}, "text", [SAY]),
        (
            {
                "prompt": {
                    "role": "prompter",
                    "text": "Q",
                    "replies": [
                        {"role": "assistant", "text": "worse", "rank": 1, "replies": []},
                        {"role": "assistant", "text": "A", "rank": 0, "replies": [{"role": "prompter", "text": "more?", "replies": []}]},
                    ],
                }
            },
            "tree",
            [ASK, SAY],
        ),
    ],
)
def test_a_layout_is_recognised_and_becomes_messages(row, name, messages):
    found, made = normalised(row)
    assert (found, made["messages"]) == (name, messages)
    assert normalised(row, name)[1] == made
    single = [message["role"] for message in messages if message["role"] != "system"] in (["user", "assistant"], ["assistant"])
    plain = all(message.keys() == {"role", "content"} for message in messages)
    assert ("completion" in made) == (single and plain)
    if "completion" in made:
        assert made["completion"] == "A" and made["prompt"] == ("" if name == "text" else messages[-2]["content"])


def test_tools_are_read_from_text_and_named_functions():
    _, made = normalised({"messages": [ASK, SAY], "tools": '[{"name": "f"}]'})
    assert made["tools"] == [{"type": "function", "function": {"name": "f"}}] and "completion" not in made
    assert normalised({"messages": [ASK, SAY], "tools": " "})[1]["tools"] == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"headline": "h", "body": "b"}, 'not recognised: {"headline": "h", "body": "b"}'),
        ({"messages": []}, "not of layout 'messages': {\"messages\": []}"),
        ({"messages": [{"role": "sytem", "content": "x"}]}, 'unknown role "sytem"'),
        ({"messages": ["hello"]}, "a message is text"),
        ({"messages": [{"role": "user", "content": 5}]}, "content is a number"),
        ({"messages": [ASK, SAY], "tools": "{"}, "'tools' is no JSON"),
        ({"conversations": [{"from": "function_call", "value": "f(1)"}]}, "a call of a tool is no JSON"),
        ({"conversations": [{"from": "function_call", "value": "{}"}]}, "names no tool"),
        ({"instruction": "Q"}, "not of layout 'instruction'"),
        ({"instruction": "Q", "instances": [{}, {}]}, "has 2 instances"),
    ],
)
def test_what_is_not_recognised_is_an_error_that_shows_the_row(row, said):
    with pytest.raises(UserError) as caught:
        normalised(row)
    assert said in str(caught.value) and caught.value.problems[0].where == WHERE


def generate(folder, source, file, **changes):
    values = {"source": source, "layout": Layout(), **changes}
    metrics = run(Parameters(**values), Job("generate-x", {"source": file}, folder, None, folder))
    # The reader of every later step takes them.
    return metrics, [row for _, row in read_objects(folder / "rows.jsonl")], list(read_rows(folder / "rows.jsonl"))


def test_rows_become_either_shape_and_what_has_no_answer_is_counted(tmp_path):
    rows = [
        {"messages": [ASK, SAY]},
        {"messages": [{"role": "system", "content": "S"}, ASK, SAY]},
        {"messages": [ASK, SAY, ASK, SAY]},
        {"messages": [ASK, SAY, ASK]},
        {"messages": [{"role": "user", "content": " "}, SAY, ASK, SAY]},
        {"text": ""},
    ]
    write_rows(tmp_path / "in.jsonl", rows)
    metrics, made, _ = generate(tmp_path, Jsonl(path="x"), tmp_path / "in.jsonl")
    assert [sorted(row.keys() - {"id", "group"}) for row in made] == [
        ["completion", "prompt"],
        ["completion", "prompt", "system"],
        ["messages"],
    ]
    assert metrics["left_out"] == {"conversation without an answer at its end": 1, "empty completion": 1, "empty message": 1}
    assert metrics["layouts"] == {"messages": 5, "text": 1}


def test_another_answer_to_the_same_question_is_of_the_same_group(tmp_path):
    other = {"role": "assistant", "content": "B"}
    write_rows(tmp_path / "in.jsonl", [{"messages": [ASK, SAY]}, {"messages": [ASK, other]}, {"messages": [ASK, SAY, ASK, other]}])
    _, made, _ = generate(tmp_path, Jsonl(path="x"), tmp_path / "in.jsonl")
    assert made[0]["group"] == made[1]["group"] != made[2]["group"] and len({row["id"] for row in made}) == 3


def test_a_layout_may_only_ask_and_a_teacher_answers(tmp_path):
    write_rows(tmp_path / "in.jsonl", [{"instruction": "Q", "output": "old", "better": "new"}])
    more = {"prompts": ("{{ prompt }}",), "teacher": Gold(column="better")}
    _, (row,), _ = generate(tmp_path, Jsonl(path="x"), tmp_path / "in.jsonl", **more)
    assert (row["prompt"], row["completion"]) == ("Q", "new")


def test_roles_out_of_order_are_told_at_the_row(tmp_path):
    write_rows(tmp_path / "in.jsonl", [{"messages": [ASK, {"role": "system", "content": "S"}, SAY]}])
    with pytest.raises(UserError, match="out of order") as caught:
        generate(tmp_path, Jsonl(path="x"), tmp_path / "in.jsonl")
    assert caught.value.problems[0].where.file.endswith("in.jsonl")


INSTANCE = {"input": "instances[0].input", "output": "instances[0].output", "instances": "none"}
REAL = {
    "fastchat/dummy_conversation.json": (Json, {}, "conversations", 500, 0),
    "oasst_sample/en_100_message.jsonl": (Jsonl, {}, "tree", 100, 0),
    "oasst_sample/en_100_tree.jsonl": (Jsonl, {}, "tree", 100, 0),
    "glaive_toolcall/glaive_toolcall_en_demo.json": (Json, {}, "conversations", 300, 0),
    "gsm8k/test.jsonl": (Jsonl, {}, "prompt_completion", 1319, 0),
    "dolly_fixture/dolly.json": (Json, {}, "instruction", 12, 0),
    "self_instruct/seed_tasks.jsonl": (Jsonl, {"columns": INSTANCE}, "instruction", 175, 0),
    "self_instruct/user_oriented_instructions.jsonl": (Jsonl, {"columns": INSTANCE}, "instruction", 252, 0),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_is_recognised(tmp_path, name):
    if not (DATA / name).exists():
        pytest.skip("the public data sets do not lie beside the repository")
    member, options, layout, rows_in, left_out = REAL[name]
    metrics, made, rows = generate(tmp_path, member(path="x", **options), DATA / name)
    assert metrics["layouts"] == {layout: rows_in} and metrics["rows_in"] == rows_in
    assert sum(metrics["left_out"].values()) == left_out, metrics["left_out"]
    assert len(rows) == len(made) == rows_in - left_out
    if "glaive" in name:
        assert any(message.get("tool_calls") for row in rows for message in row.messages)
        assert any(row.get("tools") for row in made)
