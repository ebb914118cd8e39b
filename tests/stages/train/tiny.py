"""Tiny trainings: random rows of tokens, a mixture's order, and a model to train."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from stages.process.job import Job
from stages.tokens.files import TokenWriter
from stages.train import GlobalBatch, Parameters, Schedule
from stages.train.distributed.processes import Replicated
from stages.train.loop.batches import below
from stages.train.loop.data import Row, Rows
from stages.train.loop.division import Share
from stages.train.loop.validation import Validator
from stages.train.methods import Full
from tests.stages.initialize.tiny import make_job

SIZES = {"copy": 13, "name": 9}


def write_tokens(path: Path, rows: int, seed: int, supervised: bool = True, length: tuple[int, int] = (6, 14), vocab: int = 250) -> Path:
    """ROWS rows of random tokens with lengths in LENGTH, the second half of each supervised."""
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TokenWriter(path) as writer:
        for _ in range(rows):
            ids = generator.integers(2, vocab, generator.integers(*length)).astype(np.int32)
            writer.write(ids, (np.arange(len(ids)) * 2 >= len(ids)).astype(np.uint8) * supervised)
    return path


def write_order(folder: Path, sizes: dict[str, int], seed: int = 0) -> Path:
    """A mixture that goes once through the tasks' rows."""
    pairs = np.array([(number, row) for number, rows in enumerate(sizes.values()) for row in range(rows)])
    pairs = np.random.default_rng(seed).permutation(pairs)
    folder.mkdir(parents=True)
    save_file({"task": pairs[:, 0].astype(np.int16), "row": pairs[:, 1].astype(np.int32)}, folder / "order.safetensors")
    (folder / "tasks.json").write_text(json.dumps(list(sizes)))
    return folder


def training_job(folder: Path, model: Path, sizes: dict[str, int] = SIZES, **tokens: Any) -> Job:
    """A job that trains MODEL on random rows of several tasks."""
    inputs = {"model": model, "order": write_order(folder / "order", sizes)}
    for number, (task, rows) in enumerate(sizes.items()):
        inputs[f"tokens/{task}"] = write_tokens(folder / task / "train.safetensors", rows, number, **tokens)
        inputs[f"validation/{task}"] = write_tokens(folder / task / "validation.safetensors", 5, 100 + number)
    return make_job(folder / "job", inputs, plot=True)


def settings(**values: Any) -> Parameters:
    """A short training with a visible effect; one thread, so that runs can be compared bit by bit."""
    given = {"method": Full(), "global_batch": GlobalBatch(rows=6), "learning_rate": 3e-3, "schedule": Schedule(), "threads": 1}
    return Parameters(**(given | values))


def collate(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Tensors [rows, longest row] for a causal model: input_ids, attention_mask and labels (int64), padded on the right."""
    batch = below(range(len(rows)), rows)
    return {**batch.inputs, "labels": batch.labels}


def mean_loss(model: Any, rows: Rows) -> float:
    """Cross entropy per supervised token of ROWS."""
    validator = Validator(Replicated(model, torch.optim.SGD(model.parameters()), 1.0, Share()), {"all": rows}, None)
    return validator.ask(0, None).loss
