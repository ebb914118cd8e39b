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
FORMATS = ['{ kind = "merged", dtype = "bfloat16", min_equal_answers = 0 }', '{ kind = "vllm", min_equal_answers = 0 }']


def test_the_commands_of_the_page(place: Place):
    formats = [*FORMATS, *(['{ kind = "gguf", min_equal_answers = 0 }'] if find_spec("xllamacpp") else [])]
    place.write("specs/tiny.toml", SPEC % ", ".join(formats))
    commands = [line.split("$ ")[1].split() for line in PAGE.splitlines() if line.startswith("    $ engine ")]
    assert [command[1] for command in commands] == ["plan", "build", "verify"]
    # Exit code 2 says that something would run.
    planned = place.run(*commands[0], check=False).stdout
    assert re.search(r"run +export-tiny-merged-bfloat16 +never built\n.*~0.01 GB on disk", planned)
    build_recorded(place)
    assert "of 2 answers equal" in place.run(*commands[0]).stdout
    assert "export-tiny-merged-bfloat16 matches its provenance" in place.run(*commands[2]).stderr
    for name in ("merged-bfloat16", "vllm", *(["gguf-q8_0"] if len(formats) > 2 else [])):
        metrics = json.loads((place.root / f"metrics/export-tiny-{name}.json").read_text())
        assert metrics["rows"] == 2 and metrics["divergence"] <= metrics["max_divergence"]
        statement = json.loads((place.root / f"artifacts/export-tiny-{name}.provenance.json").read_text())
        assert statement["subject"][0]["name"] == f"artifacts/export-tiny-{name}"
    place.run("engine", "report")
    assert re.search(r"^\| export-tiny-vllm \| +transformers", (place.root / "report/report.md").read_text(), re.MULTILINE)
    assert set(place.plan().values()) == {"keep"}
