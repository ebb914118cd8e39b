"""A model that somebody trained, exported and asked: chat template, digits split one by one, 49,152 tokens, tied embeddings."""

from pathlib import Path

import pytest

from benchmarks.common import REAL_MODEL
from stages.dequantise import Parameters as Dequantise
from stages.dequantise.body import run as dequantise
from stages.export.body import run
from stages.export.formats import ExportFormat, Gguf, Merged
from tests.stages.export.small import job_of, settings
from tests.stages.initialize.tiny import make_job, write_lines

pytestmark = pytest.mark.real

QUESTIONS = [
    "What is the capital of France?",
    "Name three colours.",
    "Write one sentence about 1,234 rivers.",
    "Translate to French: good morning",
    "What is 17 + 25?",
    "Who wrote Hamlet?",
    "Give me a short poem about the sea.",
    "Is the sun a star? Answer yes or no.",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = make_job(tmp_path_factory.mktemp("smollm2"), {"gguf": REAL_MODEL})
    dequantise(Dequantise(), job)
    return job.output


@pytest.mark.parametrize("into", [Merged(dtype="nf4"), Gguf(type="q8_0")], ids=lambda into: into.label)
def test_a_real_model_is_the_same_where_it_goes(model: Path, tmp_path: Path, into: ExportFormat):
    rows = [{"id": f"row-{number}", "prompt": asked, "completion": ""} for number, asked in enumerate(QUESTIONS)]
    job = job_of(tmp_path / "job", model=model, test_say=write_lines(tmp_path / "test.jsonl", rows))
    found = run(settings(into, rows=2, tasks={"say": 8}), job)
    assert found["prompts_compared"] == 2 and found["divergence"] <= into.limits.divergence
