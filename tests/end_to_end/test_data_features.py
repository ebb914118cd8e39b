"""One spec with a task for each way to get, ask, clean and split rows: all of it built, and looked at in what the steps leave."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import errors_of
from tests.end_to_end.test_chat_teacher import KEY, files_with
from tests.stages.generate.chat_server import Server, running

pytestmark = pytest.mark.slow

SPEC = """\
[experiment]
name = "features"

[model]
name = "tiny"
architecture = { kind = "llama", hidden_size = 16, layers = 1, heads = 2, max_length = 128 }
tokenizer = { tasks = ["csv"] }

[mixture]
tasks = ALL

[evaluation]
tasks = ["csv"]

[training]
method = "full"

[tasks.csv]
source = { kind = "csv", path = "rows.csv" }
ASK

[tasks.json]
source = { kind = "json", path = "rows.json", rows = "data" }
ASK

[tasks.parquet]
source = { kind = "parquet", path = "rows.parquet" }
ASK

[tasks.gzip]
source = { kind = "jsonl", path = "rows.jsonl.gz" }
ASK

[tasks.text]
source = { kind = "text", path = "rows.txt", split = "line" }
layout = "text"
prompts = ["Say {{ text }}:"]
teacher = { kind = "gold", column = "text" }

[tasks.chain]
source = { kind = "task", task = "csv" }
prompts = ["Again {{ completion }}:"]
teacher = { kind = "gold", column = "completion" }

[tasks.typed]
source = { kind = "csv", path = "rows.csv", columns = { n = { of = "number", type = "integer" } }, where = "n < 10", sample = { rows = 5 } }
ASK

[tasks.sharegpt]
source = { kind = "jsonl", path = "share_gpt.jsonl" }
layout = "auto"

[tasks.alpaca]
source = { kind = "jsonl", path = "alpaca.jsonl" }
layout = "auto"

[tasks.phrasings]
source = { kind = "csv", path = "rows.csv" }
prompts = ["A {{ word }}", "B {{ word }}", { file = "c.jinja" }]
system = "Repeat number {{ number }}."
teacher = { kind = "gold", column = "word" }

[tasks.examples]
source = { kind = "csv", path = "rows.csv" }
few_shot = { count = 2, answer = "word" }
ASK

[tasks.cleaned]
source = { kind = "jsonl", path = "dirty.jsonl" }
prompts = ["{{ text }}"]
teacher = { kind = "gold", column = "answer" }
empty_fields = "leave_out"
cleaning = [
  { kind = "duplicates", of = "prompt" },
  { kind = "length", of = "completion", max_words = 3 },
  { kind = "characters", forbidden = "#" },
  { kind = "script", scripts = ["latin"] },
  { kind = "near_duplicates", of = "prompt" },
  { kind = "overlap", against = { kind = "jsonl", path = "held.jsonl" }, shortest = 3 },
]

[tasks.column]
source = { kind = "csv", path = "rows.csv" }
split = { column = "part" }
ASK

[tasks.fixed]
source = { kind = "csv", path = "rows.csv" }
split = { test_source = { kind = "jsonl", path = "held.jsonl" }, max_test = 1 }
ASK

[tasks.structured]
source = { kind = "csv", path = "rows.csv" }
prompts = ["Name {{ word }}"]
[tasks.structured.teacher]
CHAT
json_field = "title"
json_schema = { type = "object", required = ["title"], properties = { title = { type = "string" } } }

[tasks.batched]
source = { kind = "csv", path = "rows.csv" }
prompts = ["Batch {{ word }}"]
[tasks.batched.teacher]
CHAT
batch = true
batch_poll = 0.05

[tasks.refused]
source = { kind = "csv", path = "rows.csv" }
prompts = ["{{ mark }} {{ word }}"]
[tasks.refused.teacher]
CHAT
on_refusal = "drop"
on_cut_off = "retry"
"""
ASK = 'prompts = ["Say {{ word }}:"]\nteacher = { kind = "gold", column = "word" }'
CHAT = 'kind = "chat"\nmodel = "m"\nbase_url = "URL"\napi_key_env = "ROAD_KEY"'
COUNT = 20


def made(place: Place, task: str) -> list[dict[str, Any]]:
    text = (place.root / f"artifacts/generate-{task}/rows.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def metrics(place: Place, task: str) -> dict[str, Any]:
    return json.loads((place.root / f"metrics/generate-{task}.json").read_text("utf-8"))


def sizes(place: Place, task: str) -> dict[str, int]:
    return {path.stem: len(path.read_text("utf-8").splitlines()) for path in (place.root / f"artifacts/split-{task}").glob("*.jsonl")}


def write(root: Path) -> None:
    """Twenty words in every format, conversations in two layouts, rows with every fault, and a held-out set."""
    marks = {3: "[refusal]", 4: "[cut]"}
    rows = [{"word": f"word{n}", "number": n, "part": ("train", "test")[n % 4 == 0], "mark": marks.get(n, "go")} for n in range(COUNT)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    (root / "rows.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in table), "utf-8")
    (root / "rows.json").write_text(json.dumps({"data": rows}), "utf-8")
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "rows.parquet")
    (root / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (root / "rows.txt").write_text("".join(f"{row['word']}\n" for row in rows), "utf-8")
    (root / "c.jinja").write_text("C {{ word }}\n", "utf-8")
    chats = [{"conversations": [{"from": "human", "value": f"q{n}"}, {"from": "gpt", "value": f"a{n}"}] * 2} for n in range(COUNT)]
    (root / "share_gpt.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats), "utf-8")
    tasks = [{"instruction": f"i{n}", "input": f"x{n}", "output": f"o{n}"} for n in range(COUNT)]
    (root / "alpaca.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks), "utf-8")
    good = [{"text": f"{word} stands alone here", "answer": "yes"} for word in "one two three four five six seven eight nine ten".split()]
    long = "a long text of many words that says nothing at all and goes on and on for a while"
    faults = ["kept # twice", "слова не те совсем", "held out words of the exam", "", long, f"{long} more"]
    dirty = [*good, good[0], {"text": "too long an answer", "answer": "a b c d"}, *({"text": text, "answer": "no"} for text in faults)]
    (root / "dirty.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dirty), "utf-8")
    held = [{"text": "held out words of the exam", "word": f"held{n}", "number": n} for n in range(3)]
    (root / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held), "utf-8")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("features") / "workspace")
    found.root.mkdir()
    found.run("engine", "init", ".")
    (found.root / "specs/first.toml").unlink()
    write(found.root)
    tasks = json.dumps(re.findall(r"(?m)^\[tasks\.(\w+)\]$", SPEC))
    found.write("specs/features.toml", SPEC.replace("ALL", tasks).replace("ASK", ASK).replace("CHAT", CHAT).replace("URL", server.url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROAD_KEY", KEY)
        assert errors_of(found, "generate", "split") == {}
    yield found


@pytest.mark.parametrize("task", ["csv", "json", "parquet", "gzip", "chain", "text"])
def test_every_source_gives_the_same_words(place: Place, task: str):
    assert sorted(row["completion"] for row in made(place, task)) == sorted(f"word{n}" for n in range(COUNT))
    assert sum(sizes(place, task).values()) == COUNT


def test_columns_are_typed_filtered_and_sampled(place: Place):
    found = metrics(place, "typed")
    assert found["rows_out"] == 5 and found["left_out"] == {"not in the sample": 5, "where": 10}
    assert all(int(row["completion"].removeprefix("word")) < 10 for row in made(place, "typed"))


def test_layouts_become_one_form(place: Place):
    chat, one = made(place, "sharegpt")[0], made(place, "alpaca")[0]
    assert [message["role"] for message in chat["messages"]] == ["user", "assistant"] * 2
    assert one["completion"] == "o0" and "i0" in one["prompt"] and "x0" in one["prompt"]


def test_phrasings_system_prompts_and_examples(place: Place):
    rows = made(place, "phrasings")
    assert {row["prompt"][0] for row in rows} == {"A", "B", "C"} and all(row["system"].startswith("Repeat number ") for row in rows)
    train = {json.loads(line)["completion"] for line in (place.root / "artifacts/split-examples/train.jsonl").read_text().splitlines()}
    for row in made(place, "examples"):
        shown = [line.partition(":")[2].strip() for line in row["prompt"].splitlines() if ":" in line]
        shown = [word for word in shown if word]
        assert len(shown) == 2 and set(shown) <= train - {row["completion"]}, "of the train split, and never its own answer"


def test_every_cleaning_rule_takes_its_row(place: Place):
    found = metrics(place, "cleaned")
    assert {rule["kind"]: rule["taken"] for rule in found["cleaning"]} == dict.fromkeys(
        ["duplicates", "length", "characters", "script", "near_duplicates", "overlap"], 1
    )
    assert found["left_out"]["empty field 'text'"] == 1
    assert found["rows_in"] == found["rows_out"] + sum(found["left_out"].values())


def test_splits_are_the_sources_own_or_a_fixed_test(place: Place):
    assert sizes(place, "column") == {"train": 15, "validation": 0, "test": 5}
    fixed = sizes(place, "fixed")
    assert fixed["test"] == 1 and fixed["train"] + fixed["validation"] == COUNT


def test_chat_teachers_structured_batched_and_refused(place: Place, server: Server):
    assert {row["completion"] for row in made(place, "structured")} == {f"NAME WORD{n}" for n in range(COUNT)}
    assert {row["completion"] for row in made(place, "batched")} == {f"BATCH WORD{n}" for n in range(COUNT)}
    assert metrics(place, "refused")["left_out"] == {"cut off": 1, "refused": 1}
    assert server.journal()["batches"] == 1 and files_with(KEY, place.root) == []
