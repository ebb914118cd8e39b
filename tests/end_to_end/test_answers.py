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
from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import build_recorded
from tests.stages.generate.tiny_models import llama
from tests.support.warm import warm_python

pytestmark = pytest.mark.slow

PART = """
[model]
path = "base"
name = "toy"

[tasks.a]
source = { kind = "jsonl", path = "data/a.jsonl" }
system = "Repeat."
prompts = ["Say {{ word }}:"]
teacher = { kind = "gold", column = "word" }
split = { validation = 0.1, test = 0.3 }
max_new_tokens = 6

[tokenization.format]
kind = "chat"
template_file = "chat.jinja"

[mixture]
tasks = ["a"]

[training]
steps = 3
global_batch = { rows = 4 }
learning_rate = 0.05

[evaluation]
metrics = ["exact_match"]

[resources]
threads = 1
"""
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
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LORA = '{ kind = "lora", r = 4, lora_alpha = 64 }'
PROMPT = '{ kind = "prompt_tuning", num_virtual_tokens = 3 }'
SAMPLED = '{ kind = "sample", seed = 3, temperature = 0.8 }'


def spec(name: str, seed: int, method: str, more: str = "") -> str:
    head = f'extends = ["parts/common.toml"]\n[experiment]\nname = "{name}"\nseed = {seed}\n'
    return f"{head}[training]\nmethod = {method}\n{more}"


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two adapters with a chat format on one base, one of which samples, and one that is prompt-tuned."""
    place = Place(tmp_path_factory.mktemp("talking"))
    llama(place.root / "base", positions=4096, seed=3)
    place.write("chat.jinja", TEMPLATE)
    place.write("pyproject.toml", '[project]\nname = "w"\nversion = "0"\n')
    place.write("data/a.jsonl", "".join(json.dumps({"word": f"w{n}"}) + "\n" for n in range(40)))
    place.write("specs/parts/common.toml", PART)
    place.write("specs/red.toml", spec("red", 1, LORA))
    place.write("specs/blue.toml", spec("blue", 2, LORA, f"[evaluation]\ndecoding = {SAMPLED}\n"))
    place.write("specs/prompt.toml", spec("prompt", 3, PROMPT))
    place.git("init", "--quiet")
    place.run("dvc", "init", "--quiet")
    build_recorded(place)
    return place


def rows_of(place, step, task="a"):
    return [json.loads(line) for line in (place.root / f"artifacts/{step}-{task}/test.jsonl").read_text().splitlines()]


def predicted(place, name, task="a"):
    lines = (place.root / f"artifacts/predict-{name}/predictions-{task}.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def piped(place, *arguments, given="", check=True):
    """What `engine ARGUMENTS` prints for the text GIVEN on stdin."""
    command = [warm_python(), "-m", "engine", *arguments]
    done = subprocess.run(command, cwd=place.root, env=dvc_environment(), input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


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
    digest = json.loads(piped(talking, "adapters", "--json", "--step", "train-red").stdout)[0]["digest"]
    assert piped(talking, "ask", digest.removeprefix("sha256:")[:12], row["prompt"]).stdout == f"{wanted}\n"
    other = piped(talking, "ask", "red", row["prompt"], "--system", "Be silent.", "--json").stdout
    assert json.loads(other)["prompt"] == row["prompt"]


def test_a_fetched_folder_is_asked_as_it_was_trained(talking, tmp_path):
    row = next(iter(rows_of(talking, "split")))
    wanted = predicted(talking, "red")[row["id"]]["answer"]
    digest = json.loads(piped(talking, "adapters", "--json", "--step", "train-red").stdout)[0]["digest"]
    piped(talking, "adapters", "--fetch", digest, "--output", str(tmp_path / "red"))
    asked = piped(talking, "ask", str(tmp_path / "red"), row["prompt"], "--system", "Repeat.", "--max-new-tokens", "6").stdout
    assert asked == f"{wanted}\n"


@pytest.mark.parametrize(
    ("arguments", "given", "messages"),
    [
        (["ask", "rde", "x"], "", ["unknown experiment, spec or adapter: rde", "did you mean 'red'?"]),
        (["ask", "red"], "", ["no question: stdin is empty"]),
        (["ask", "red", "x", "--task", "b"], "", ["red is not evaluated on task 'b'"]),
        (["ask", "red"], '{"prompt": 3}\n', ["this row needs text under prompt and completion", "stdin:1"]),
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
    assert done.returncode == 1 and "but the model has room for only" in done.stderr
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
