"""Tiny trainings on pairs: random answers to random prompts, a mixture's order, and the reference's log-probabilities."""

from pathlib import Path
from typing import Any

import numpy as np

from stages import reference
from stages.mix import Parameters as Mixing
from stages.mix.body import run as mix
from stages.process.job import Job
from stages.reference.body import run as compute_reference
from stages.tokens.files import TokenWriter
from tests.stages.initialize.tiny import make_job


def write_pairs(path: Path, pairs: int, seed: int = 0, vocab: int = 250) -> Path:
    """PAIRS pairs of random tokens: prompts of 2 to 6 tokens, answers of 1 to 8, of which the rejected ones are longer on average."""
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TokenWriter(path) as writer:
        for _ in range(pairs):
            prompt = generator.integers(2, vocab, generator.integers(2, 7))
            answers = [generator.integers(2, vocab, generator.integers(*span)) for span in ((1, 5), (3, 9))]
            rows = [np.concatenate([prompt, answer]).astype(np.int32) for answer in answers]
            supervised = [np.repeat([0, 1], [len(prompt), len(answer)]).astype(np.uint8) for answer in answers]
            lengths = np.array([len(row) for row in rows])
            writer.write_rows(np.concatenate(rows), np.concatenate(supervised), lengths, chosen=np.array([1, 0], np.uint8))
    return path


def reference_of(folder: Path, model: Path, train: Path, validation: Path, mismatched: bool = False, **more: Path) -> Path:
    """The artifact of the step that computes the log-probabilities of both files under MODEL."""
    job = make_job(folder, {"model": model, "train": train, "validation": validation, **more})
    compute_reference(reference.Parameters(threads=1, mismatched=mismatched), job)
    return job.output


def pairs_job(folder: Path, model: Path, pairs: int = 14, packed: int | None = None, epochs: int = 1, **more: Any) -> Job:
    """A job that trains MODEL on random pairs, compared with MODEL itself."""
    train, validation = write_pairs(folder / "train.safetensors", pairs), write_pairs(folder / "validation.safetensors", 5, 1)
    order = make_job(folder / "mix", {"tokens/colour": train})
    mix(Mixing(epochs=epochs, bin_tokens=packed), order)
    inputs = {"model": model, "order": order.output, "tokens/colour": train, "validation/colour": validation, **more}
    inputs["reference/colour"] = reference_of(folder / "reference", model, train, validation, **more)
    return make_job(folder / "job", inputs, plot=True)
