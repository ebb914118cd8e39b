"""`engine preview`: what the steps themselves would make of the first rows, tokens included, and nothing is written."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.support import commands

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden/local-model"


@pytest.fixture
def workspace(tmp_path):
    for name in ("data", "models", "specs"):
        shutil.copytree(GOLDEN / name, tmp_path / "w" / name)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["Question: a\nAnswer: b"] * 9, trainer)
    tokenizer.save(str(tmp_path / "w/models/mine/tokenizer.json"))
    rows = [{"question": "What is a fox?", "answer": "An animal."}, {"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]
    (tmp_path / "w/data/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return tmp_path / "w"


def engine(workspace: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = commands.engine(ROOT, "--workspace", str(workspace), *arguments)
    assert done.returncode == status, done.stderr
    return done


def look(workspace: Path, *arguments: str) -> dict:
    return json.loads(engine(workspace, "preview", "specs/answer.toml", *arguments, "--json").stdout)


def test_rows_prompts_and_tokens_with_their_supervised_part(workspace):
    before = sorted(workspace.rglob("*"))
    found = look(workspace, TASK, "-n", "2")
    source = [json.loads(line) for line in (workspace / "data/rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["source"] for row in found["rows"]] == source[:2] and found["without_tokens"] is None
    for row in found["rows"]:
        learned = "".join(token["text"] for token in row["tokens"] if token["supervised"])
        asked = "".join(token["text"] for token in row["tokens"] if not token["supervised"])
        assert (asked, learned) == (row["prompt"], row["row"]["completion"] + row["tokens"][-1]["text"])
    text = engine(workspace, "preview", "specs/answer.toml", TASK, "-n", "1").stdout
    assert "⟦" in text and "supervised" in text and source[0][next(iter(source[0]))] in text
    assert sorted(workspace.rglob("*")) == before, "a preview writes nothing"


def test_what_the_step_would_say_is_said(workspace):
    (workspace / "data/rows.jsonl").write_text('{"unlike": 1}\n', "utf-8")
    said = engine(workspace, "preview", "specs/answer.toml", TASK, status=1).stderr
    assert said.startswith("error: this row has no column 'question'") and "rows.jsonl:1" in said and "Traceback" not in said
    said = engine(workspace, "preview", "specs/answer.toml", "answre", status=1).stderr
    assert "has no task 'answre'" in said and "did you mean" in said


@pytest.mark.parametrize(
    ("policy", "fails", "said"),
    [
        ("error", True, "the build fails at this row, unless it is a test row: row "),
        ("drop", False, "left out of training: longer than max_length"),
        ("truncate_prompt_left", None, "note: truncated to the maximum length"),
        ("split", None, "tokens of another row: "),
    ],
)
def test_what_the_build_will_do_with_a_row_that_is_too_long_is_said(workspace, policy, fails, said):
    spec = workspace / "specs/answer.toml"
    tokens = f'[tokenization]\nmask = "full"\nmax_length = 20\nover_length = "{policy}"\n'
    spec.write_text(f"{spec.read_text('utf-8')}\n{tokens}", "utf-8")
    (row,) = look(workspace, TASK, "-n", "1")["rows"]
    assert row.get("fails") is fails and ("no_tokens" in row) == (fails is not None)
    assert said in engine(workspace, "preview", "specs/answer.toml", TASK, "-n", "1").stdout


def test_a_template_file_is_checked_before_anything_runs(workspace):
    spec = workspace / "specs/answer.toml"
    spec.write_text(spec.read_text("utf-8").replace("prompts        = [", 'prompts        = [{ file = "ask.jinja" }, '), "utf-8")
    assert "file not found: ask.jinja" in engine(workspace, "check", status=1).stderr
    (workspace / "ask.jinja").write_text("{{ question }", "utf-8")
    said = engine(workspace, "check", status=1).stderr
    assert "ask.jinja is not a valid Jinja template" in said and "(line 1 of the template)" in said
    (workspace / "ask.jinja").write_text("{{ question }}?\n", "utf-8")
    assert engine(workspace, "check").returncode == 0


def test_without_a_tokenizer_there_is_text_and_a_sentence(workspace):
    spec = workspace / "specs/answer.toml"
    text = spec.read_text("utf-8").replace('path = "models/mine"', MODEL)
    text = text.replace('["q_proj", "v_proj"]', '"all-linear"')
    assert MODEL in text
    spec.write_text(text, "utf-8")
    found = look(workspace, TASK, "-n", "1")
    assert "tokens" not in found["rows"][0] and found["rows"][0]["row"]["completion"]
    assert "tokenizer" in found["without_tokens"] and "engine build initialize-tiny" in found["without_tokens"]


MODEL = 'name = "tiny"\narchitecture = { kind = "gpt2", hidden_size = 16, layers = 1, heads = 2, max_length = 256 }'
TASK = "answer"


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def with_chat(workspace: Path, form: str) -> None:
    spec = workspace / "specs/answer.toml"
    spec.write_text(spec.read_text("utf-8") + f'\n[tokenization]\nformat = {form}\nmask = "assistant"\n', "utf-8")


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        (TEMPLATE.encode(), '{ kind = "chat", template_file = "chat.jinja" }'),
        (b"\xef\xbb\xbf" + TEMPLATE.encode(), '{ kind = "chat", template_file = "chat.jinja" }'),
        (TEMPLATE.replace("<{{", "[{{").replace("<assistant", "[assistant").encode(), '{ kind = "chat", template_file = "chat.jinja" }'),
        (b"", f"{{ kind = \"chat\", template = '{TEMPLATE}' }}"),
        (TEMPLATE.encode(), '{ kind = "chat", template_file = "chat.jinja", variables = { a = 1 } }'),
    ],
)
def test_tokens_under_the_chat_template_of_the_spec(workspace, raw, form):
    (workspace / "chat.jinja").write_bytes(raw)
    with_chat(workspace, form)
    found = look(workspace, TASK, "-n", "1")
    (row,) = found["rows"]
    assert found["without_tokens"] is None and "no_tokens" not in row
    learned = "".join(token["text"] for token in row["tokens"] if token["supervised"])
    asked = "".join(token["text"] for token in row["tokens"] if not token["supervised"])
    opening = "[" if b"[" in raw else "<"
    assert learned.startswith(row["row"]["completion"])
    assert asked == f"{opening}user>{row['prompt']}</s>{opening}assistant>"


@pytest.mark.parametrize(("raw", "said"), [(TEMPLATE.encode("utf-16"), "UTF-16, not UTF-8"), (b"\xff{{ x }}", "not UTF-8")])
@pytest.mark.parametrize("place", ["chat", "prompt"])
def test_a_template_file_that_is_no_utf8_is_told_by_check(workspace, raw, said, place):
    (workspace / "t.jinja").write_bytes(raw)
    if place == "chat":
        with_chat(workspace, '{ kind = "chat", template_file = "t.jinja" }')
    else:
        spec = workspace / "specs/answer.toml"
        spec.write_text(spec.read_text("utf-8").replace("prompts        = [", 'prompts        = [{ file = "t.jinja" }, '), "utf-8")
    told = engine(workspace, "check", status=1).stderr
    assert said in told and "--> t.jinja" in told and "Traceback" not in told


def test_what_becomes_of_the_parts_of_messages_is_shown(workspace):
    template = (
        "{% for m in messages %}<{{ m.role }}>{% if m.thinking and loop.last %}({{ m.thinking }}){% endif %}{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (workspace / "t.jinja").write_text(template, "utf-8")
    spec = workspace / "specs/answer.toml"
    text = spec.read_text("utf-8")
    text = re.sub(r"(?m)^(prompts|teacher|answer_prefix|split) .*\n", "", text).replace(", limit = 100 }", ' }\nlayout = "auto"')
    tokens = '[tokenization]\nformat = { kind = "chat", template_file = "t.jinja" }\nmask = { kind = "assistant", unroll = "auto" }\n'
    spec.write_text(f"{text}\n{tokens}", "utf-8")
    ask, say = {"role": "user", "content": "Is </s> an end?"}, {"role": "assistant", "content": "It is.", "thinking": "Let me see."}
    calls = [{"function": {"name": "look", "arguments": "{}"}}]
    rows = [{"messages": [ask, say, ask, say]}, {"messages": [ask, {**say, "tool_calls": calls}]}]
    (workspace / "data/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    unrolled, refused = look(workspace, TASK, "-n", "2")["rows"]
    assert unrolled["notes"][0].startswith("control tokens in its text: 2, encoded as text") and "2 in total" in unrolled["notes"][1]
    learned = ["".join(one["text"] for one in tokens if one["supervised"]) for tokens in (unrolled["tokens"], *unrolled["more_tokens"])]
    assert learned == ["(Let me see.)It is.</s>"] * 2
    assert "omits part of row" in refused["no_tokens"] and "tool calls" in refused["no_tokens"]
    said = engine(workspace, "preview", "specs/answer.toml", TASK, "-n", "2").stdout
    assert "assistant, reasoning: Let me see." in said and "note: unrolled" in said and "tokens of another row" in said
