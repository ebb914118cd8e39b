"""`engine ask` and `engine chat` answer as the predict step does, with the template, system prompt and end tokens of the spec."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys

import pytest

from engine.build.driver import dvc_environment
from tests.end_to_end.talkers import piped, predicted, rows_of

pytestmark = pytest.mark.slow

SAVED = """
[experiment]
name = "saved"
[model]
path = "base"
[tasks.talk]
source = { kind = "jsonl", path = "data/talk.jsonl" }
layout = "messages"
max_new_tokens = 6
"""


@pytest.mark.parametrize("name", ["red", "blue", "prompt"])
def test_every_row_is_answered_as_by_the_predict_step(talking, name):
    wanted = predicted(talking, name)
    given = (talking.root / "artifacts/split-a/test.jsonl").read_text()
    found = {row["id"]: row for row in map(json.loads, piped(talking, "ask", name, "--json", given=given).stdout.splitlines())}
    assert wanted.keys() == found.keys() and len(wanted) > 5
    for identity, row in wanted.items():
        assert {key: found[identity][key] for key in row} == row
    assert len({row["answer"] for row in wanted.values()}) > 1


def test_a_question_gets_the_system_prompt_and_the_template_of_its_training(talking):
    row = next(iter(rows_of(talking, "split")))
    wanted = predicted(talking, "red")[row["id"]]["answer"]
    assert row["system"] == "Repeat."
    assert piped(talking, "ask", "red", row["prompt"]).stdout == f"{wanted}\n"
    assert piped(talking, "ask", "red", given=f"{row['prompt']}\n").stdout == f"{wanted}\n", "a text on stdin is one question"
    digest = json.loads(piped(talking, "adapters", "--json", "--step", "train-red").stdout)["adapters"][0]["digest"]
    assert piped(talking, "ask", digest.removeprefix("sha256:")[:12], row["prompt"]).stdout == f"{wanted}\n"
    other = piped(talking, "ask", "red", row["prompt"], "--system", "Be silent.", "--json").stdout
    assert json.loads(other)["prompt"] == row["prompt"]


def test_a_row_of_columns_gets_the_prompt_of_its_task_and_the_id_by_which_answers_are_drawn(talking):
    row = next(iter(rows_of(talking, "split")))
    columns = json.dumps({"word": row["prompt"].removeprefix("Say ").removesuffix(":"), "other": 1})
    for name, argument, given in (("red", [columns], ""), ("blue", [], columns)):
        found, wanted = (
            json.loads(piped(talking, "ask", name, *argument, "--json", given=given).stdout),
            predicted(talking, name)[row["id"]],
        )
        assert {key: found[key] for key in ("id", "prompt", "answer")} == {key: wanted[key] for key in ("id", "prompt", "answer")}
    refused = piped(talking, "ask", "red", '{"wrod": "w1"}', check=False)
    assert refused.returncode == 1 and "'word'" in refused.stderr and "Traceback" not in refused.stderr
    assert json.loads(piped(talking, "ask", "red", "{ not JSON", "--json").stdout)["prompt"] == "{ not JSON"


def test_a_fetched_folder_is_asked_as_it_was_trained(talking, tmp_path):
    row = next(iter(rows_of(talking, "split")))
    wanted = predicted(talking, "red")[row["id"]]["answer"]
    digest = json.loads(piped(talking, "adapters", "--json", "--step", "train-red").stdout)["adapters"][0]["digest"]
    piped(talking, "adapters", "--fetch", digest, "--output", str(tmp_path / "red"))
    asked = piped(talking, "ask", str(tmp_path / "red"), row["prompt"], "--system", "Repeat.", "--max-new-tokens", "6").stdout
    assert asked == f"{wanted}\n"
    # Nobody has said how long the answer may be: it gets the room that the prompt leaves.
    long = json.loads(piped(talking, "ask", str(tmp_path / "red"), "w " * 2000, "--json").stdout)
    assert long["prompt"] == "w " * 2000 and 0 < long["tokens"] < 96
    refused = piped(talking, "ask", str(tmp_path / "red"), "w " * 2000, "--max-new-tokens", "512", check=False)
    assert refused.returncode == 1 and "the answer up to 512, but the model has a context of 4096" in refused.stderr
    assert re.search(r"hint: allow \d\d tokens at most \(--max-new-tokens", refused.stderr) and "tasks." not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "given", "messages"),
    [
        (["ask", "rde", "x"], "", ["unknown experiment, spec or adapter: rde", "did you mean 'red'?"]),
        (["ask", "red"], "", ["no question: stdin is empty"]),
        (["ask", "red", "x", "--task", "b"], "", ["red is not evaluated on task 'b'"]),
        (["ask", "red"], '{"prompt": 3}\n', ["this row needs text under prompt, or a list under messages", "stdin:1"]),
        (["ask", "red"], '{"prompt": "x"}\n{\n', ["not valid JSON", "stdin:2"]),
        (["chat", "red", "--with", "red"], "", ["two of these models are called red"]),
    ],
)
def test_what_cannot_be_asked(talking, arguments, given, messages):
    refused = piped(talking, *arguments, given=given, check=False)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert all(message in refused.stderr for message in messages), refused.stderr


def test_a_prompt_that_leaves_no_room_is_an_error_and_the_next_row_is_answered(talking):
    given = "".join(json.dumps({"id": name, "prompt": text}) + "\n" for name, text in (("long", "w " * 2100), ("short", "Say w1:")))
    done = piped(talking, "ask", "red", "--json", given=given, check=False)
    assert done.returncode == 1 and "but the model has a context of" in done.stderr
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["short"]


def test_two_adapters_on_one_base_side_by_side(talking, tmp_path):
    row = next(iter(rows_of(talking, "split")))
    lines = [
        row["prompt"],
        "/switch blue",
        row["prompt"],
        "/switch bleu",
        "/raw",
        f"/save {tmp_path}/talk.jsonl",
        "/new",
        "/switch",
        "/what",
    ]
    said = piped(talking, "chat", "red", "--with", "blue", given="\n".join(lines) + "\n").stdout
    wanted = predicted(talking, "red")[row["id"]]["answer"]
    assert said.startswith(f"red\n{wanted}"), said
    assert "asking blue" in said and "no model 'bleu' here" in said and "did you mean 'blue'?" in said
    assert "blue: what it read, and [what it generated]" in said and "as a row of its training, with [what is supervised]" in said
    assert re.search(r"a new conversation\nasking red, blue\n.*unknown command /what", said, re.DOTALL)
    (saved,) = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    assert saved["model"] == "blue" and [message["role"] for message in saved["messages"]] == ["system", *["user", "assistant"] * 2]
    # The saved rows are those of a task.
    talking.write("data/talk.jsonl", (tmp_path / "talk.jsonl").read_text())
    talking.write("specs/saved.toml", SAVED)
    (row,) = json.loads(piped(talking, "preview", "specs/saved.toml", "talk", "--json").stdout)["rows"]
    (talking.root / "specs/saved.toml").unlink()
    assert row["row"]["messages"] == saved["messages"]


def test_ctrl_c_ends_the_answer_and_not_the_conversation(talking):
    """In a terminal: the answer is cut, the next question is answered, and /quit ends."""
    main, terminal = pty.openpty()
    # Started cold: a warm Python does not pass signals on.
    command = [sys.executable, "-m", "engine", "chat", "base", "--max-new-tokens", "1500"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    talk = subprocess.Popen(command, cwd=talking.root, env=dvc_environment(), process_group=0, **streams)
    os.close(terminal)
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([main], [], [], 200)[0], seen
            seen += os.read(main, 4096).decode(errors="replace")
        seen = seen.partition(text)[2]

    try:
        until("/help lists the commands")
        for _ in range(2):
            until("> ")
            os.write(main, b"Say w1:\n")
            until("Say w1:\r\n")
            assert select.select([main], [], [], 200)[0] and os.read(main, 1), "the answer has begun"
            os.killpg(talk.pid, signal.SIGINT)
            until("(interrupted)")
        until("> ")
        os.write(main, b"/quit\n")
        assert talk.wait(60) == 0
    finally:
        talk.kill()
        os.close(main)
