"""The examples in specs/examples, each built by a real `dvc repro` over a few hundred real rows and some odd ones, with tiny sizes."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.experiments import EXPERIMENTS
from engine.dvc import run_records
from stages.tokens.encoder import Encoder
from stages.tokens.files import Tokens
from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import build_in_one_process
from tests.end_to_end.serving import serving
from tests.end_to_end.talkers import piped
from tests.end_to_end.test_chat_teacher import KEY, asking, files_with
from tests.stages.generate.chat_server import running

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "specs" / "examples"
DATA = ROOT.parent / "shared" / "data"

ODD = "odd 🙂 \x00 \u2028 é"
"""Four bytes in UTF-8, a NUL, and a line separator that `splitlines` would cut at."""
LONG = "A sentence that comes again and again. " * 400

pytestmark = pytest.mark.slow


def public(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the public data set {name} is not on this machine ({DATA})")
    return path


def workspace(example: str, root: Path) -> Place:
    """A copy of an example, made a workspace as its README says."""
    shutil.copytree(EXAMPLES / example, root, ignore=shutil.ignore_patterns("artifacts", "data", ".dvc"))
    (root / "data").mkdir()
    place = Place(root)
    place.run("engine", "init", ".")
    return place


def shrink(place: Place, more: dict[str, str]) -> None:
    """Make the trainings of all specs tiny; MORE holds replacements by pattern, each of which must match somewhere."""
    wanted = {r"(?m)^(steps|epochs)( *)= \d+": r"steps\2= 3", r"hidden_size = \d+": "hidden_size = 32"}
    wanted |= more | {r"layers = \d+": "layers = 1", r"vocab_size = \d+": "vocab_size = 300"}
    wanted |= {r"global_batch( *)= \{ rows = \d+ \}": r"global_batch\1= { rows = 4 }"}
    used = set()
    for path in sorted(place.root.glob("specs/**/*.toml")):
        text = path.read_text("utf-8")
        for pattern, replacement in wanted.items():
            text, count = re.subn(pattern, replacement, text)
            used |= {pattern} if count else set()
        path.write_text(text, "utf-8")
    assert used == set(wanted)
    for path in place.root.glob("specs/*.toml"):
        path.write_text(path.read_text("utf-8") + "\n[resources]\nthreads = 1\n", "utf-8")


def add_rows(place: Place, file: str, rows: list[dict[str, Any]]) -> None:
    """Put ROWS before those of a data file."""
    path = place.root / "data" / file
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert "\u2028" in lines and "\\u0000" in lines
    path.write_bytes(lines.encode("utf-8") + path.read_bytes())


def build(place: Place, *targets: str) -> dict[str, dict[str, Any]]:
    """Build the workspace, or TARGETS alone, and give the metrics of every step, after what holds for every build was checked."""
    planned = place.plan(*targets)
    assert set(planned.values()) == {"run"}
    done = place.run("engine", "build", *targets)
    assert "Traceback" not in done.stderr
    metrics = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(place.root.glob("metrics/*.json"))}
    headlines = {f"score-{path.stem}" for path in place.root.glob("metrics/experiments/*.json")}
    assert metrics.keys() | headlines == set(planned) - {"resolve"}
    counted = [(name, counts) for name, content in metrics.items() for counts in countings(content)]
    assert {name.split("-")[0] for name, _ in counted} >= {"generate", "split", "tokenize"}
    for name, counts in counted:
        assert counts["rows_in"] == rows_out(counts) + sum(counts.get("left_out", {}).values()), (name, counts)
    # 0, not 2: nothing is left to do, although DVC will run `resolve` here again, whose output stays the same.
    again = json.loads(place.run("engine", "plan", "--json", *targets).stdout)["steps"]
    assert {step["name"]: step["action"] for step in again} == dict.fromkeys(planned, "keep")
    return metrics


def countings(metrics: Any) -> Iterator[dict[str, Any]]:
    """Every table of METRICS, however deep, that says how many rows came in."""
    if isinstance(metrics, dict):
        if "rows_in" in metrics:
            yield metrics
        for value in metrics.values():
            yield from countings(value)


def rows_out(counts: dict[str, Any]) -> int:
    """What a step gave on: all rows, or those of its splits together."""
    return counts["rows_out"] if "rows_out" in counts else sum(counts[name] for name in ("train", "validation", "test"))


def made_rows(place: Place, task: str) -> list[dict[str, Any]]:
    text = (place.root / f"artifacts/generate-{task}/rows.jsonl").read_bytes().decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def convert(place: Place, source: Path) -> None:
    """Run the README's own snippet."""
    snippet = re.search(r"```python\n(.*?)```", (place.root / "README.md").read_text("utf-8"), re.DOTALL)
    assert snippet
    subprocess.run([sys.executable, "-c", snippet[1], str(source)], cwd=place.root, check=True)


@pytest.mark.long
def test_instruction_induction(tmp_path: Path):
    source = public("instruction_induction") / "induce"
    place = workspace("instruction-induction", tmp_path / "workspace")
    convert(place, source)
    rows = json.loads((source / "antonyms.json").read_text("utf-8"))["examples"]
    assert (place.root / "data/antonyms.jsonl").read_text("utf-8").count("\n") == len(rows) == 600
    odd = [
        {"input": ODD, "output": ODD},
        {"input": "nothing", "output": ""},
        {"input": "spaces only", "output": " \u2003 "},
        {"input": LONG, "output": "long"},
    ]
    add_rows(place, "antonyms.jsonl", odd)
    shrink(place, {r'\.jsonl" \}': '.jsonl", limit = 150 }', r"\[evaluation\]\n": "[evaluation]\nrows = 4\n"})

    # What `plural` adds is its training: the base and its answers are asked elsewhere.
    metrics = build(place, "evaluate-multitask", "train-plural")

    assert metrics["generate-antonyms"]["rows_in"] == 150
    assert metrics["generate-antonyms"]["left_out"] == {"empty completion": 2}
    assert metrics["tokenize-antonyms-tiny"]["train"]["left_out"] == {"longer than max_length": 1}
    (made,) = [row for row in made_rows(place, "antonyms") if "🙂" in row["prompt"]]
    assert made["completion"] == f" {ODD}" and ODD in made["prompt"]
    assert set(metrics["mix-multitask"]["tasks"]) == {"antonyms", "singular_to_plural", "translation_en-de", "sentiment"}
    assert set(metrics["mix-plural"]["tasks"]) == {"singular_to_plural"}
    shares = {task["rows"] for task in metrics["mix-multitask"]["tasks"].values()}
    assert max(shares) - min(shares) <= 12, "three steps of four rows, and no task is left out by more than chance"
    assert {task["rows_out"] for task in metrics["predict-multitask"].values()} == {4}
    for experiment in ("base", "multitask", "plural"):
        assert metrics[f"train-{experiment}"]["steps"] == 3
    for experiment in ("multitask", "plural"):
        adapter = place.root / f"artifacts/train-{experiment}"
        weights, serving = {"adapter_config.json", "adapter_model.safetensors"}, {"generation_config.json", "tokenizer.json"}
        assert {path.name for path in adapter.iterdir()} == weights | serving | {"tokenizer_config.json"}


@pytest.mark.long
@pytest.mark.real
def test_smollm2(tmp_path: Path):
    example = EXPERIMENTS["smollm2"]
    for data in example.data:
        public(data)
    place = Place(tmp_path / "workspace")
    example.prepare(place.root)
    person = [json.loads(line) for line in (place.root / "data/person.jsonl").read_text("utf-8").splitlines()]
    assert len(person) > 400 and all(name in row["text"] for row in person for name in row["persons"].split("; "))
    for path, pattern, replacement in (
        ("specs/parts/tasks.toml", r"rows    = 40", "rows    = 2"),
        ("specs/parts/adapter.toml", r"epochs        = 2", "steps         = 2"),
        ("specs/parts/adapter.toml", r"rows = 8", "rows = 2"),
    ):
        text, count = re.subn(pattern, replacement, (place.root / path).read_text("utf-8"))
        assert count == 1, pattern
        (place.root / path).write_text(text, "utf-8")

    metrics = build(place, "evaluate-person")

    assert metrics["dequantise-smollm2"]["parameters"] == 134_515_008
    assert metrics["train-person"]["steps"] == 2
    assert {task["rows_out"] for task in metrics["predict-person"].values()} == {2}


@pytest.mark.long
def test_scitldr(tmp_path: Path):
    source = public("scitldr_a") / "train.jsonl"
    place = workspace("scitldr", tmp_path / "workspace")
    shutil.copyfile(source, place.root / "data/train.jsonl")
    odd = [
        {"source": [ODD, "Two."], "title": ODD, "paper_id": "odd"},
        {"source": ["No title."], "title": "", "paper_id": "empty"},
        {"source": ["Null for a title."], "title": None, "paper_id": "null"},
        {"source": [LONG, "The end."], "title": "long", "paper_id": "long"},
        {"source": [], "title": "An empty abstract", "paper_id": "none"},
    ]
    add_rows(place, "train.jsonl", odd)
    shrink(place, {r"limit = \d+": "limit = 200", r"\brows( +)= 32": r"rows\1= 4", r"max_length( *)= 1024": r"max_length\1= 4096"})

    metrics = build(place, "evaluate-title")

    assert metrics["generate-title"]["rows_in"] == 200
    assert metrics["generate-title"]["left_out"] == {"empty completion": 2, "empty field 'source'": 1}
    rows = {row["group"]: row for row in made_rows(place, "title")}
    assert rows["odd"]["prompt"] == f"Abstract: {ODD} Two.\nTitle:" and rows["odd"]["completion"] == f" {ODD}"
    assert "none" not in rows
    assert rows["long"]["prompt"].endswith("The end.\nTitle:") and len(rows["long"]["prompt"]) > 10_000
    for name in ("reading", "answering"):
        tokens = metrics[f"tokenize-title-tiny-{name}"]["train"]
        assert tokens["truncated"] > 100 and tokens["longest"] == 256 and not tokens["left_out"]
    reading, answering = (metrics[f"tokenize-title-tiny-{name}"]["train"] for name in ("reading", "answering"))
    assert reading["tokens"] == reading["supervised_tokens"] == answering["tokens"] > answering["supervised_tokens"]
    assert metrics["predict-title"]["title"]["rows_out"] == 4


@pytest.mark.long
def test_summaries(tmp_path: Path):
    source = public("scitldr_a")
    place = workspace("summaries", tmp_path / "workspace")
    shutil.copyfile(source / "test.jsonl", place.root / "data/test.jsonl")
    lines = (source / "train.jsonl").read_bytes().split(b"\n")[:800]
    (place.root / "data/train.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    sentence = "Not found in any article, but in the file of the test rows and in one row of train."
    shared = {"source": [ODD, sentence], "target": [sentence, "b"], "title": "A title of more than ten", "paper_id": "shared"}
    odd = [
        {**shared, "paper_id": "another"},
        {**shared, "paper_id": "short", "source": [ODD, "Only here."], "target": ["Two words"], "title": "short"},
        {**shared, "paper_id": "empty", "source": [], "target": ["No text at all is there."]},
    ]
    add_rows(place, "train.jsonl", odd[:2])
    add_rows(place, "test.jsonl", [shared])

    tasks = ("extract", "summarize", "title")
    shrink(place, {r"\brows( +)= 16": r"rows\1= 4", r"rows = 1200": "rows = 400"})

    metrics = build(place)

    assert set(metrics["mix-three"]["tasks"]) == set(tasks) and metrics["train-three"]["rows"] == 12
    assert {task: found["rows_out"] for task, found in metrics["predict-three"].items()} == dict.fromkeys(tasks, 4)
    assert metrics["generate-extract"]["left_out"]["not in the sample"] == 802 - 400
    assert metrics["generate-title"]["left_out"]["where"] >= 1
    overlap = next(rule for rule in metrics["generate-summarize"]["cleaning"] if rule["kind"] == "overlap")
    assert 1 <= overlap["taken"] < 40 and metrics["generate-summarize"]["left_out"]["fewer than 4 words"] >= 1
    published = {row["paper_id"] for row in map(json.loads, (place.root / "data/test.jsonl").read_text("utf-8").split("\n")[:-1])}
    trained: dict[str, set[str]] = {}
    for task in tasks:
        assert min(metrics[f"generate-{task}"]["prompts"].values()) > 100, "three phrasings, each of about a third"
        groups = {split: {row["group"] for row in split_rows(place, task, split)} for split in ("train", "validation", "test")}
        assert len(groups["test"]) == 64 and groups["test"] <= published
        assert not groups["train"] & groups["test"] and not groups["train"] & groups["validation"]
        trained[task] = groups["train"]
    held_out = {row["group"] for task in tasks for row in split_rows(place, task, "validation")}
    assert not held_out & set().union(*trained.values()), "an article is in one split for every task"
    rows = [row for row in made_rows(place, "title") if row["prompt"].endswith("A good title for the text above:")]
    assert rows and all(not row["prompt"].startswith(("\n", "{#")) for row in rows)


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The example of conversations, built: not to be changed."""
    place = workspace("chats", tmp_path_factory.mktemp("chats") / "workspace")
    trees = public("oasst_sample") / "en_100_tree.jsonl"
    (place.root / "data/en_100_tree.jsonl").write_bytes(b"".join(trees.read_bytes().splitlines(keepends=True)[:24]))
    rows = json.loads((public("fastchat") / "dummy_conversation.json").read_text("utf-8"))
    (place.root / "data/dummy_conversation.json").write_text(json.dumps(rows[:40]), "utf-8")
    small = {r"max_new_tokens = \d+": "max_new_tokens = 8", r"\brows( +)= 8": r"rows\1= 3", r"heads = 4": "heads = 2"}
    shrink(place, small)
    build_in_one_process(place)
    return place


def metrics_of(place: Place, step: str) -> dict[str, Any]:
    return json.loads((place.root / f"metrics/{step}.json").read_text("utf-8"))


def learned(place: Place, tokens: str, tokenizer: str) -> list[list[str]]:
    """The text of each stretch of supervised tokens, row by row."""
    folder = place.root / f"artifacts/{tokenizer}"
    encoder = Encoder.open({name: folder / name for name in ("tokenizer.json", "tokenizer_config.json")})
    found = Tokens.open(place.root / f"artifacts/{tokens}/train.safetensors")
    rows = []
    for number in range(len(found)):
        ids, supervised = found.row(number)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], supervised, [0]])))
        rows.append(encoder.decode([ids[a:b].tolist() for a, b in zip(edges[::2], edges[1::2], strict=True)]))
    return rows


def stretches(positions: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The supervised stretches of what `engine inspect` says of a row."""
    return [list(group) for supervised, group in groupby(positions, lambda position: position["supervised"]) if supervised]


def said(place: Place, task: str) -> list[list[str]]:
    """What the assistant says in each row of a task's train split, turn by turn."""
    rows = split_rows(place, task, "train")
    return [
        [message["content"] for message in row["messages"] if message["role"] == "assistant"] if "messages" in row else [row["completion"]]
        for row in rows
    ]


def test_chats_learn_what_the_assistant_says(chats: Place):
    for step in ("tokenize-identity-tiny-chatml", "tokenize-identity-tiny-marked", "tokenize-threads-tiny-chatml"):
        counts = metrics_of(chats, step)["train"]
        assert counts["rows_in"] == rows_out(counts) + sum(counts["left_out"].values()) and counts["supervised_tokens"] > 0
    for tokens, tokenizer, end in (
        ("tokenize-identity-tiny-chatml", "vocabulary-tiny-chatml", "<|im_end|>"),
        ("tokenize-identity-tiny-marked", "initialize-tiny", "<|endoftext|>"),
    ):
        assert not metrics_of(chats, tokens)["train"]["left_out"]
        texts = [[answer + end for answer in answers] for answers in said(chats, "identity")]
        whole = [row for row, found in zip(texts, learned(chats, tokens, tokenizer), strict=True) if row == found]
        # A row that was cut has lost its first turns; all others are learned to the letter.
        assert len(texts) - len(whole) <= metrics_of(chats, tokens)["train"]["truncated"] < len(texts)
    assert any(len(answers) > 1 for answers in said(chats, "identity"))


def test_chats_save_the_new_tokens_with_the_adapter(chats: Place):
    ids = sorted(json.loads((chats.root / "artifacts/vocabulary-tiny-chatml/new_tokens.json").read_text("utf-8")).values())
    weights = load_file(chats.root / "artifacts/train-assistant/adapter_model.safetensors")
    (rows,) = (weight for name, weight in weights.items() if "trainable_tokens" in name)
    base = load_file(chats.root / "artifacts/train-base/model.safetensors")["model.embed_tokens.weight"]
    assert rows.shape == (2, 32) and len(ids) == 2 and ids[0] == len(base), "the embeddings were resized"
    before = base.mean(0)
    assert all(np.abs(row - before).max() > 1e-4 for row in rows), "both were trained"
    assert {found["rows_out"] for found in metrics_of(chats, "predict-assistant").values()} == {3}
    other = load_file(chats.root / "artifacts/train-marked/adapter_model.safetensors")
    assert not any("trainable_tokens" in name for name in other)
    seen = json.loads(chats.run("engine", "inspect", "assistant", "--task", "identity", "--json").stdout)
    texts = ["".join(p["token"] for p in stretch) for stretch in stretches(seen["positions"])]
    assert texts == learned(chats, "tokenize-identity-tiny-chatml", "vocabulary-tiny-chatml")[0]
    assert set(ids) <= {p["id"] for p in seen["positions"]} and seen["loss"]["base"] != seen["loss"]["trained"]


def test_chats_are_pairs_for_a_model_with_an_encoder(chats: Place):
    tokens = Tokens.open(chats.root / "artifacts/tokenize-identity-tiny-t5/train.safetensors")
    assert tokens.source_lengths is not None and all(tokens.supervised[tokens.offsets[1:] - 1])
    assert metrics_of(chats, "train-t5")["steps"] == 3
    positions = json.loads(chats.run("engine", "inspect", "t5", "--json").stdout)["positions"]
    source = int(tokens.source_lengths[0])
    assert [p["supervised"] for p in positions] == [place >= source for place in range(len(positions))]
    assert all((p["base"] is not None) == (p["trained"] is not None) == p["supervised"] for p in positions)
    assert {found["rows_out"] for found in metrics_of(chats, "predict-t5").values()} == {3}


def test_chats_are_mixed_as_the_samplers_say(chats: Place):
    base, assistant, marked = (metrics_of(chats, f"mix-{name}")["tasks"] for name in ("base", "assistant", "marked"))
    assert metrics_of(chats, "mix-base")["packing_efficiency"] > 0.9
    assert set(base) | set(assistant) | set(marked) == {"threads", "identity"}


@pytest.mark.long
def test_chat_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The server is the tests' own: what it counts is what was asked."""
    monkeypatch.setenv("TEACHER_KEY", KEY)
    place = workspace("chat-teacher", tmp_path / "workspace")
    shown = place.run("engine", "plan", "generate-headline", check=False).stdout.splitlines()
    page = (ROOT / "docs/how-to/generate-with-a-chat-api.md").read_text("utf-8")
    assert all(line.rstrip() in page for line in shown[:4]) and "500 requests to send" in shown[3], "the how-to shows this very plan"
    with running() as server:
        shrink(place, {r"http://127.0.0.1:8000/v1": server.url, r"rows = 500": "rows = 60"})
        facts = asking(place, "generate-headline")
        assert (facts["requests"], facts["rows_cached"]) == (60, 0) and facts["cost"] > 0 and server.received() == []

        metrics = build(place, "train-headlines")

        assert metrics["generate-headline"]["rows_out"] == 60 and metrics["train-headlines"]["steps"] == 3
        asked = server.received()
        assert len(asked) == len(set(asked)) == 60 and server.journal()["keys"] == [f"Bearer {KEY}"]
        rows = made_rows(place, "headline")
        assert sorted(row["prompt"] for row in rows) == sorted(asked)
        assert all(row["completion"] == f" {row['prompt'].upper()}" for row in rows), "the server answers in capitals"
        assert run_records.parse((place.root / "artifacts/generate-headline.run.json").read_bytes()).measured["teacher"]["requests"] == 60
        # Built again from nothing: the answers are paid for.
        for folder in ("artifacts", ".dvc/cache", "dvc.lock"):
            subprocess.run(["rm", "-rf", str(place.root / folder)], check=True)
        place.run("engine", "build", "generate-headline")
        assert server.received() == asked and made_rows(place, "headline") == rows
    assert files_with(KEY, place.root) == []


@pytest.mark.long
def test_distil(tmp_path: Path):
    """The whole circle: a model of the workspace teaches another through the server."""
    place = workspace("distil", tmp_path / "workspace")
    for path in place.root.glob("specs/*.toml"):
        # The teacher must learn where an answer ends: one that does not end teaches nothing.
        smaller = {r"rows = \d{4}": "rows = 120", r"hidden_size = \d+, layers = \d": "hidden_size = 48, layers = 1"}
        smaller |= {r"rows = 32 \}": "rows = 16 }", r"steps         = \d+": "steps = 60", r"learning_rate = .*": "learning_rate = 1e-2"}
        text = path.read_text("utf-8")
        for pattern, replacement in smaller.items():
            text, count = re.subn(pattern, replacement, text)
            assert count == 1, pattern
        path.write_text(text.replace("validation = 0.05, test = 0.05", "validation = 0.1, test = 0.1"), "utf-8")
    place.run("engine", "build", "evaluate-teacher")
    with serving(place.root, tmp_path / "log", "teacher") as server:
        student = place.root / "specs/student.toml"
        student.write_text(student.read_text("utf-8").replace("http://127.0.0.1:8000/v1", server.url), "utf-8")
        facts = asking(place, "generate-guessed")
        assert (facts["requests"], facts["rows_cached"], server.health()["answered"]) == (120, 0, 0)
        place.run("engine", "build", "evaluate-student")
        assert server.health()["answered"] == 120
    counts = json.loads((place.root / "metrics/generate-guessed.json").read_text("utf-8"))
    rows = made_rows(place, "guessed")
    assert counts["rows_out"] == len(rows) == 120 - sum(counts["left_out"].values()) > 60
    # What the teacher said to the student is what it says when it is asked, byte for byte.
    questions = "".join(json.dumps({"id": row["id"], "prompt": row["prompt"]}) + "\n" for row in rows)
    said = {
        row["id"]: row["answer"] for row in map(json.loads, piped(place, "ask", "teacher", "--json", given=questions).stdout.splitlines())
    }
    assert said == {row["id"]: row["completion"] for row in rows} and len(set(said.values())) > 1
    # The server is gone, and nothing is left to ask.
    assert set(place.plan("evaluate-student").values()) == {"keep"} and asking(place, "generate-guessed") is None


def split_rows(place: Place, task: str, split: str) -> list[dict[str, Any]]:
    text = (place.root / f"artifacts/split-{task}/{split}.jsonl").read_bytes().decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def test_one_script_writes_the_rows_of_both_examples_of_smollm2(tmp_path: Path):
    for name, content in (("pos", "a fine film .\n\n"), ("neg", "a dull film .\n")):
        (tmp_path / "sentence_polarity").mkdir(exist_ok=True)
        (tmp_path / f"sentence_polarity/rt-polarity.{name}").write_text(content, "latin-1")
    (tmp_path / "instruction_induction/induce").mkdir(parents=True)
    passive = {"examples": {"1": {"input": "He saw it.", "output": "It was seen."}}}
    (tmp_path / "instruction_induction/induce/active_to_passive.json").write_text(json.dumps(passive), "utf-8")
    example = EXPERIMENTS["smollm2-preferences"]
    assert example.script and (example.source / "../smollm2/prepare.py").resolve() == example.script
    assert "python ../smollm2/prepare.py path/to/public/data polarity passive" in (example.source / "README.md").read_text("utf-8")

    def prepared(*tasks: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "here").mkdir(exist_ok=True)
        command = [sys.executable, str(example.script), str(tmp_path), *tasks]
        return subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True, check=False)

    assert prepared("polarty").returncode == 2 and not (tmp_path / "here/data").exists()
    assert prepared(*example.tasks).returncode == 0
    written = {
        file.name: [json.loads(line) for line in file.read_text("utf-8").splitlines()] for file in (tmp_path / "here/data").iterdir()
    }
    assert written == {
        "polarity.jsonl": [{"text": "a fine film .", "polarity": "positive"}, {"text": "a dull film .", "polarity": "negative"}],
        "passive.jsonl": [{"text": "He saw it.", "passive": "It was seen."}],
    }


@pytest.mark.long
@pytest.mark.real
def test_smollm2_learns_from_pairs_of_its_own_answers(tmp_path: Path):
    example = EXPERIMENTS["smollm2-preferences"]
    for data in example.data:
        public(data)
    place = Place(tmp_path / "workspace")
    example.prepare(place.root)
    for path, pattern, replacement, times in (
        ("specs/parts/reviews.toml", r"rows = 250", "rows = 24", 2),
        ("specs/parts/reviews.toml", r"rows    = 50", "rows    = 2", 1),
        ("specs/brief.toml", r"samples     = 4", "samples     = 3", 1),
        ("specs/brief.toml", r"epochs        = 3", "steps         = 1", 1),
        ("specs/brief.toml", r"rows = 8", "rows = 2", 1),
    ):
        text, count = re.subn(pattern, replacement, (place.root / path).read_text("utf-8"))
        assert count == times, pattern
        (place.root / path).write_text(text, "utf-8")

    metrics = build(place, "evaluate-brief")

    made = metrics["pair-samples"]
    assert 0 < made["pairs"] <= made["prompts"] <= 20 and made["margin"] > 0
    assert {task["rows_out"] for task in metrics["predict-brief"].values()} == {2} and metrics["train-brief"]["steps"] == 1
