"""Rows of both shapes: what is read, and located errors for whatever has neither shape."""

import json

import pytest

from engine.core.errors import UserError
from stages.rows.rows import read_rows

SYSTEM = {"role": "system", "content": "Be kind."}
USER = {"role": "user", "content": "Hello?"}
ANSWER = {"role": "assistant", "content": "Hi."}
TOOL = {"role": "tool", "content": "21 degrees"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}


def read(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "group": "g", **row}) + "\n" for n, row in enumerate(rows)))
    return list(read_rows(path))


def problem(folder, **row):
    with pytest.raises(UserError) as caught:
        read(folder, {"prompt": "p", "completion": "c"}, row)
    found = caught.value.problems[0]
    assert (found.where.file, found.where.line) == (str(folder / "rows.jsonl"), 2)
    return str(found)


def test_a_pair_is_a_chat_of_its_own(tmp_path):
    plain, with_system = read(tmp_path, {"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c", "system": "s"})
    asked = {"role": "user", "content": "p"}
    assert plain.question == (asked,) and plain.reference == "c" and plain.messages == ()
    assert plain.conversation() == (asked, {"role": "assistant", "content": "c"})
    assert with_system.question == ({"role": "system", "content": "s"}, asked)


def test_the_last_assistant_message_is_the_answer(tmp_path):
    (row,) = read(tmp_path, {"messages": [SYSTEM, USER, ANSWER, USER, {**ANSWER, "content": "Bye."}, USER], "tools": [{"name": "t"}]})
    assert row.reference == "Bye." and row.question == (SYSTEM, USER, ANSWER, USER) and row.tools == ({"name": "t"},)
    assert len(row.conversation()) == 6


def test_a_call_of_tools_needs_no_content(tmp_path):
    (row,) = read(tmp_path, {"messages": [USER, CALL, TOOL, CALL]})
    assert row.reference == "" and row.messages[1]["content"] is None


def test_surrogates_are_found_wherever_they_are(tmp_path):
    bad = "\ud800"
    rows = [
        {"prompt": bad, "completion": "c"},
        {"prompt": "p", "completion": "c", "system": bad},
        {"messages": [USER, {**ANSWER, "content": bad}]},
        {"messages": [USER, ANSWER], "tools": [{"deep": [{"name": bad}]}]},
        {"messages": [USER, ANSWER]},
    ]
    assert [row.is_well_formed() for row in read(tmp_path, *rows)] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p"}, "needs text under prompt and completion"),
        ({"prompt": 1, "completion": "c"}, "needs text under prompt and completion"),
        ({"prompt": "p", "completion": "c", "system": 3}, "system prompt must be text, got a number"),
        ({"prompt": "p", "messages": [USER, ANSWER]}, "messages and prompt"),
        ({"messages": []}, "messages must be a list of messages"),
        ({"messages": "hello"}, "messages must be a list of messages"),
        ({"messages": [USER, "hello"]}, "messages[1] must be an object with role and content, got text"),
        ({"messages": [USER, {"role": "asistant", "content": "x"}]}, "did you mean 'assistant'?"),
        ({"messages": [USER, {"role": "assistant"}]}, "messages[1] (assistant) has no content"),
        ({"messages": [USER, {"role": "assistant", "content": [1]}]}, "has a list as content"),
        ({"messages": [{"role": "user", "content": None, "tool_calls": [1]}, ANSWER]}, "messages[0] (user) has no content"),
        ({"messages": [USER, {**ANSWER, "train": "no"}]}, "has train = 'no'"),
        ({"messages": [{**USER, "train": True}, ANSWER]}, "messages[0] (user) has train = True"),
        ({"messages": [USER]}, "no assistant message"),
        ({"messages": [USER, SYSTEM, ANSWER]}, "roles out of order: messages[1] is a system message"),
        ({"messages": [USER, TOOL, ANSWER]}, "roles out of order: messages[1] is a tool message that follows user"),
        ({"messages": [USER, ANSWER], "tools": "weather"}, "tools must be a list of objects"),
    ],
)
def test_what_is_no_row_is_the_users_error_at_its_line(tmp_path, row, said):
    assert said in problem(tmp_path, **row)
