"""The commands of docs/how-to/export.md: exports are planned with their size, built, verified and reported as any step."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import build_recorded

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs/how-to/export.md").read_text("utf-8")
SPEC = """
[experiment]
name = "tiny"

[model]
experiment = "one"

[tasks.a]
source = { kind = "jsonl", path = "data/a.jsonl" }
prompts = ["Say {{ word }}:"]
teacher = { kind = "gold", column = "word" }
split = { validation = 0.1, test = 0.2 }
max_new_tokens = 4

[evaluation]
rows = 4

[resources]
threads = 1

[export]
rows = 2
formats = [%s]
"""
LORA = '{ kind = "gguf_lora", min_equal_answers = 0 }'
FORMATS = ['{ kind = "merged", dtype = "bfloat16", min_equal_answers = 0 }', '{ kind = "vllm", min_equal_answers = 0 }']


def test_the_commands_of_the_page(place: Place):
    formats = [*FORMATS, *(['{ kind = "gguf", min_equal_answers = 0 }', LORA] if find_spec("xllamacpp") else [])]
    place.write("specs/tiny.toml", SPEC % ", ".join(formats))
    commands = [line.split("$ ")[1].split() for line in PAGE.splitlines() if line.startswith("    $ engine ")]
    assert [command[1] for command in commands] == ["plan", "build", "verify"]
    # Exit code 2 says that something would run.
    planned = place.run(*commands[0], check=False).stdout
    assert re.search(r"run +export-tiny-merged-bfloat16 +never built\n.*~0.01 GB on disk", planned)
    build_recorded(place)
    assert "of 2 answers equal" in place.run(*commands[0]).stdout
    assert "export-tiny-merged-bfloat16 matches its provenance" in place.run(*commands[2]).stderr
    names = ("merged-bfloat16", "vllm", *(["gguf-q8_0", "gguf-lora"] if len(formats) > 2 else []))
    for name in names:
        metrics = json.loads((place.root / f"metrics/export-tiny-{name}.json").read_text())
        assert metrics["rows"] == 2 and metrics["divergence"] <= metrics["max_divergence"]
        statement = json.loads((place.root / f"artifacts/export-tiny-{name}.provenance.json").read_text())
        assert statement["subject"][0]["name"] == f"artifacts/export-tiny-{name}"
    place.run("engine", "report")
    assert re.search(r"^\| export-tiny-vllm \| +transformers", (place.root / "report/report.md").read_text(), re.MULTILINE)
    assert set(place.plan().values()) == {"keep"}
    for name in names:
        card_says_how_it_runs(place, name)
    refused = place.run("engine", "publish", "export-tiny-vlm", "--to", "x", check=False)
    assert refused.returncode == 1 and "did you mean 'export-tiny-vllm'?" in refused.stderr
    refused = place.run("engine", "publish", "export-tiny-vllm", "--to", "data/a.jsonl", check=False)
    assert refused.returncode == 1 and "--to must be a folder or USER/NAME, and data/a.jsonl is a file" in refused.stderr


RUN = {
    "merged-bfloat16": "vllm serve .",
    "vllm": "sh serve.sh",
    "gguf-q8_0": "llama-server -m model.gguf",
    "gguf-lora": "llama-server -m base.gguf --lora adapter.gguf",
}


def card_says_how_it_runs(place: Place, name: str) -> None:
    """A published export tells of which experiment it is, what was compared, and commands that leave its own files as they are."""
    target = place.root / "out" / name
    place.run("engine", "publish", f"export-tiny-{name}", "--to", str(target))
    card = (target / "README.md").read_text()
    for text in ("The model of the experiment `tiny`", "| greedy answers that are equal |", "Spec `specs/tiny.toml`", f"\n{RUN[name]}\n"):
        assert text in card, card
    assert ("ollama create" in card) == (target / "Modelfile").exists() and "> Modelfile" not in card
