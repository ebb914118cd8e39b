"""Tiny models, made by the real body of initialize, and the jobs to run bodies with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.initialize import Parameters
from stages.initialize.architectures import T5, Bloom, Falcon, Gpt2, GptNeox, Llama, Mistral, Qwen2, Qwen3
from stages.initialize.body import run
from stages.initialize.tokenizers import Tokenizer
from stages.process.job import Job

DECODERS = {
    "bloom": Bloom,
    "falcon": Falcon,
    "gpt2": Gpt2,
    "gpt_neox": GptNeox,
    "llama": Llama,
    "mistral": Mistral,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
}
ARCHITECTURES = {"bloom": Bloom, "falcon": Falcon, "gpt2": Gpt2, "llama": Llama}
WORDS = "red green blue one two three four five cat dog bird fish tree house river stone".split()


def texts(count: int = 40) -> list[dict[str, object]]:
    """Rows whose completion repeats the prompt's word: easily learnt, prompts of different lengths."""
    rows = []
    for number in range(count):
        word = WORDS[number % len(WORDS)]
        rows.append({"id": f"row-{number}", "prompt": f"{'say ' * (1 + number % 5)}{word}:", "completion": f" {word}"})
    return rows


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_job(folder: Path, inputs: Mapping[str, Path], plot: bool = False) -> Job:
    output, scratch = folder / "output", folder / "scratch"
    output.mkdir(parents=True)
    scratch.mkdir()
    return Job("step", inputs, output, folder / "plot.csv" if plot else None, scratch)


def parameters(architecture: str = "falcon", **sizes: Any) -> Parameters:
    made = (DECODERS | {"t5": T5})[architecture](**({"hidden_size": 32, "layers": 2, "heads": 4, "max_length": 64} | sizes))
    return Parameters(architecture=made, tokenizer=Tokenizer(vocab_size=300), seed=3)


def make_model(folder: Path, architecture: str = "falcon", **sizes: Any) -> Path:
    """The folder of a model with random weights and its tokenizer."""
    job = make_job(folder, {"rows/words": write_lines(folder / "rows.jsonl", texts())})
    run(parameters(architecture, **sizes), job)
    return job.output


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in FOLDER, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
