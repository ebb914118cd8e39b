"""Layouts of conversations: each is recognised and becomes one form; real data sets pass through the step."""

import json
from pathlib import Path

import pytest

from engine.core.errors import Location, UserError
from stages.generate import Parameters
from stages.generate.body import run
from stages.generate.layout import Layout
from stages.generate.sources.json import Json
from stages.generate.sources.jsonl import Jsonl
from stages.generate.teachers.gold import Gold
from stages.process.job import Job
from stages.rows.jsonl import read_objects, write_rows
from stages.rows.rows import read_rows

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
        ({"messages": ["hello"]}, "a message must be an object, got text"),
        ({"messages": [{"role": "user", "content": 5}]}, "content must be text, got a number"),
        ({"messages": [ASK, SAY], "tools": "{"}, "'tools' is not valid JSON"),
        ({"conversations": [{"from": "function_call", "value": "f(1)"}]}, "a tool call is not valid JSON"),
        ({"conversations": [{"from": "function_call", "value": "{}"}]}, "a tool call has no name"),
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


SYSTEM = {"role": "system", "content": "S"}
EARLIER = [{"role": "user", "content": "Q0"}, {"role": "assistant", "content": "A0"}]
THOUGHT = {**SAY, "reasoning_content": "R"}


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_kept_whatever_its_key(key):
    assert normalised({"messages": [ASK, {**SAY, key: "R"}]})[1]["messages"] == [ASK, THOUGHT]
    assert normalised({"conversations": [ASK, {"from": "gpt", "value": "A", key: "R"}]})[1]["messages"] == [ASK, THOUGHT]
    # Empty, it says nothing.
    assert normalised({"messages": [ASK, {**SAY, key: None}, ASK, {**SAY, key: " "}]})[1]["messages"] == [ASK, SAY, ASK, SAY]


def test_reasoning_among_the_parts_of_a_content_is_kept():
    parts = [{"type": "thinking", "thinking": "R"}, {"type": "text", "text": "A"}]
    assert normalised({"messages": [ASK, {**SAY, "content": parts}]})[1]["messages"] == [ASK, THOUGHT]
    nested = [{"type": "thinking", "thinking": [{"type": "text", "text": "R"}]}, {"type": "text", "text": "A"}]
    assert normalised({"messages": [ASK, {**SAY, "content": nested}]})[1]["messages"] == [ASK, THOUGHT]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"system": "S", "messages": [ASK, SAY, ASK, SAY]}, [SYSTEM, ASK, SAY, ASK, SAY]),
        ({"system_prompt": "S", "messages": [ASK, SAY]}, [SYSTEM, ASK, SAY]),
        ({"system": "S", "messages": [SYSTEM, ASK, SAY]}, [SYSTEM, ASK, SAY]),
        ({"system": "S", "messages": [{"role": "system", "content": ""}, ASK, SAY]}, [SYSTEM, ASK, SAY]),
        ({"system": " ", "messages": [ASK, SAY]}, [ASK, SAY]),
        ({"system": None, "system_message": "S", "question": "Q", "answer": "A"}, [SYSTEM, ASK, SAY]),
        ({"system": "S", "prompt": [ASK], "completion": [SAY]}, [SYSTEM, ASK, SAY]),
        ({"system": "S", "prompt": [ASK], "completion": "A"}, [SYSTEM, ASK, SAY]),
        ({"prompt": "Q", "completion": [SAY]}, [ASK, SAY]),
        ({"instruction": "Q", "input": "", "output": "A", "history": [["Q0", "A0"]], "system": "S"}, [SYSTEM, *EARLIER, ASK, SAY]),
        ({"query": "Q", "response": "A", "history": [["Q0", "A0"], ["Q0", "A0"]]}, [*EARLIER, *EARLIER, ASK, SAY]),
        ({"instruction": "Q", "output": "A", "history": '[["Q0", "A0"]]'}, [*EARLIER, ASK, SAY]),
        ({"instruction": "Q", "output": "A", "history": EARLIER}, [*EARLIER, ASK, SAY]),
        ({"instruction": "Q", "output": "A", "history": []}, [ASK, SAY]),
    ],
)
def test_a_system_prompt_and_a_history_beside_the_conversation_are_part_of_it(row, messages):
    assert normalised(row)[1]["messages"] == messages


@pytest.mark.parametrize("given", [{"x": 1}, '{"x": 1}', '{"x":1}'])
def test_calls_keep_names_and_arguments(given):
    wanted = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": given}}]
    for message in (
        {"role": "assistant", "content": None, "tool_calls": wanted},
        {"role": "assistant", "tool_calls": [{"id": "c", "index": 0, "function": {"name": "f", "arguments": given}}]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps(wanted)},
    ):
        assert normalised({"messages": [ASK, message]})[1]["messages"][1] == {"role": "assistant", "content": "", "tool_calls": wanted}
    # The one call of OpenAI's older format.
    older = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": given}}
    made = normalised({"messages": [ASK, older], "functions": [{"name": "f"}]})[1]
    assert made["messages"][1]["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": given}}]
    assert made["tools"] == [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize("key", ["train", "weight"])
@pytest.mark.parametrize(
    ("value", "learned"),
    [
        (0, False),
        (0.0, False),
        ("0", False),
        ("false", False),
        (False, False),
        (1, True),
        (1.0, True),
        ("1", True),
        ("true", True),
        (True, True),
    ],
)
def test_a_yes_or_no_says_whether_a_message_is_learned(key, value, learned):
    assert normalised({"messages": [ASK, {**SAY, key: value}]})[1]["messages"][1]["train"] is learned
    assert "train" not in normalised({"messages": [{**ASK, key: value}, {**SAY, key: None}]})[1]["messages"][0]


@pytest.mark.parametrize("value", [0.5, 2, -1, "yes", "False", "", [], {}, float("nan"), "0.0"])
def test_a_weight_that_is_no_yes_or_no_is_an_error_at_its_row(value):
    for key in ("train", "weight"):
        with pytest.raises(UserError, match=f"a message's {key} must be 0, 1, true or false, got") as caught:
            normalised({"messages": [ASK, {**SAY, key: value}]})
        assert caught.value.problems[0].where == WHERE


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"system": "T", "messages": [SYSTEM, ASK, SAY]}, "two different system prompts, in column 'system' and messages[0]"),
        ({"system": {"a": 1}, "messages": [ASK, SAY]}, "column 'system' must be text (a system prompt), got an object"),
        ({"messages": [ASK, {**SAY, "thinking": "R", "reasoning": "other"}]}, "different reasoning under thinking and reasoning"),
        ({"messages": [ASK, {**SAY, "reasoning": ["R"]}]}, "a message's reasoning must be text, got a list"),
        ({"messages": [ASK, {**SAY, "train": True, "weight": 0}]}, "train and weight contradict"),
        (
            {"messages": [ASK, {**SAY, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "arguments of a call of 'f' are not valid JSON",
        ),
        ({"messages": [ASK, {**SAY, "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}]}, "must be an object, got a list"),
        ({"messages": [ASK, {**SAY, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": NaN}'}}]}]}, "NaN is not a JSON number"),
        (
            {"messages": [ASK, {**SAY, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1, "a": 2}'}}]}]},
            'duplicate key "a"',
        ),
        ({"messages": [ASK, {**SAY, "tool_calls": [{"function": {"arguments": {}}}]}]}, "a tool call has no name"),
        ({"messages": [ASK, {**SAY, "tool_calls": 5}]}, "tool_calls must be a list of calls, got a number"),
        ({"messages": [ASK, {"role": "assistant", "content": None, "refusal": "No."}]}, "has 'refusal', which is not supported"),
        ({"messages": [{**ASK, "images": ["a.png"]}, SAY]}, "has 'images'"),
        ({"messages": [{**ASK, "thinking": "R"}, SAY]}, "of role user has reasoning_content"),
        ({"messages": [ASK, {**SAY, "content": [{"type": "tool_use", "name": "f"}]}]}, 'a part of type "tool_use"'),
        ({"instruction": "Q", "output": "A", "history": [["Q0"]]}, "'history' must be a list of [question, answer] pairs"),
        ({"instruction": "Q", "output": "A", "history": "no JSON"}, "the column 'history' is not valid JSON"),
    ],
)
def test_what_a_message_says_and_no_row_can_hold_is_an_error_at_its_row(row, said):
    with pytest.raises(UserError) as caught:
        normalised(row)
    assert said in str(caught.value) and caught.value.problems[0].where == WHERE


def test_keys_of_messages_that_nobody_reads_are_counted(tmp_path):
    write_rows(tmp_path / "in.jsonl", [{"messages": [{**ASK, "lang": "en"}, {**SAY, "score": 3, "lang": ""}, ASK, SAY]}])
    metrics, _, _ = generate(tmp_path, Jsonl(path="x"), tmp_path / "in.jsonl")
    assert metrics["ignored_message_keys"] == {"lang": 1, "score": 1}


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
