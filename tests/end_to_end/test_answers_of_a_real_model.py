"""A model that somebody trained, from a GGUF file and without a training here, answers `engine ask` as its makers meant it."""

import pytest

from benchmarks.common import REAL_MODEL
from tests.end_to_end.conftest import Place

pytestmark = [pytest.mark.real, pytest.mark.slow]

SPEC = f"""
[experiment]
name = "smol"

[model]
gguf = "{REAL_MODEL}"

[tasks.facts]
source = {{ kind = "jsonl", path = "data/facts.jsonl" }}
prompts = ["{{{{ question }}}}"]
teacher = {{ kind = "gold", column = "answer" }}
split = {{ test = 0.5, validation = 0.0 }}
max_new_tokens = 24

[tokenization]
format = "chat"
"""


def test_it_knows_the_capital_of_france(tmp_path):
    place = Place(tmp_path)
    place.write("specs/smol.toml", SPEC)
    place.write(
        "data/facts.jsonl", '{"question": "What is the capital of France?", "answer": "Paris"}\n{"question": "2+2?", "answer": "4"}\n'
    )
    place.git("init", "--quiet")
    place.run("dvc", "init", "--quiet")
    refused = place.run("engine", "ask", "smol", "What is the capital of France?", check=False)
    assert refused.returncode == 1 and "not built: artifacts/dequantise-smollm2-135m-instruct" in refused.stderr
    place.run("engine", "build", "dequantise-smollm2-135m-instruct")
    said = place.run("engine", "ask", "smol", "What is the capital of France?").stdout
    assert said == "The capital of France is Paris.\n"
