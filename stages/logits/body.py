"""Body of logits: one forward pass of the teacher over every row of the student's token files, without gradients."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from engine.core.errors import Location, UserError
from stages.logits import Parameters
from stages.models.folders import prepare_process
from stages.models.forward import batches, open_for_inference, tensors
from stages.models.projection import predictions
from stages.models.weights import token_digest, weights_digest
from stages.process.job import Job, Metrics
from stages.process.progress import Progress, progress
from stages.tokens import FAST
from stages.tokens.encoder import Encoder
from stages.tokens.files import Array, Tokens, memory_map
from stages.tokens.top_logps import SHARD_BYTES, TopLogps, bytes_per_position, shard_name, shards
from stages.tokens.vocabularies import OTHER_VOCABULARY, difference, size_of, vocabulary_digest, vocabulary_of

SPLITS = ("train", "validation")
DIGITS = 6
"""Decimal digits of the means in the metrics."""
_LEAST = float(np.finfo(np.float16).min)


def run(parameters: Parameters, job: Job, shard_bytes: int = SHARD_BYTES) -> Metrics:
    """Write the files of stages.tokens.top_logps, and `logits.json`: digests of teacher, tokens and vocabulary, by which trainings check
    that the numbers are theirs.

    Finished files of a killed run are used again. Raises UserError if the teacher's vocabulary is not the student's.
    """
    prepare_process(parameters.threads)
    vocabulary = _common_vocabulary(job)
    size = size_of(vocabulary)
    if parameters.top_k > size:
        hint = f"set training.objective.top_k to {size} or less"
        raise UserError(f"top_k is {parameters.top_k}, but the vocabulary has {size:,} tokens", hint=hint)
    half = parameters.precision if parameters.precision in ("bfloat16", "float16") else "float32"
    model = open_for_inference(job.inputs, parameters.precision, half, parameters.attention)
    files = {split: job.inputs[split] for split in SPLITS}
    metrics: Metrics = {}
    for split, path in files.items():
        tokens = Tokens.open(path)
        if model.config.is_encoder_decoder or tokens.source_lengths is not None:
            raise UserError("distillation is supported for causal models only", hint="use a causal teacher and a causal student")
        metrics[split] = _write(parameters, model, size, tokens, job, split, shard_bytes)
    folders = [job.inputs["model"], *([job.inputs["adapter"]] if "adapter" in job.inputs else [])]
    said = {
        "model": weights_digest(folders),
        "tokens": {split: token_digest(path) for split, path in files.items()},
        "vocabulary": {"digest": vocabulary_digest(vocabulary), "size": size},
    }
    (job.output / "logits.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", "utf-8")
    return metrics


def _common_vocabulary(job: Job) -> dict[str, int]:
    """The vocabulary of teacher and student; raises UserError if they differ: the student's ids would mean other tokens to the teacher."""
    files = {whose: job.group(whose) for whose in ("student", "teacher")}
    student, teacher = (_vocabulary(files[whose]) for whose in ("student", "teacher"))
    if found := difference(student, teacher):
        where = Location(str(next(iter(files["teacher"].values()))))
        raise UserError(f"the teacher's vocabulary is not the student's: {found}", where, OTHER_VOCABULARY)
    return student


def _vocabulary(files: Mapping[str, Path]) -> dict[str, int]:
    """The id of each token of the tokenizer in FILES, by name; one that is written in Python is loaded."""
    if FAST in files:
        return vocabulary_of(files[FAST])
    found: dict[str, int] = Encoder.open(files).tokenizer.get_vocab(with_added_tokens=True)
    return found


def _write(parameters: Parameters, model: Any, size: int, tokens: Tokens, job: Job, split: str, shard_bytes: int) -> Metrics:
    """Write the files of one split; those of a killed run are in the scratch folder."""
    bar: Progress[None] = progress(len(tokens), f"{job.name} {split}")
    rest, right = 0.0, 0
    finished = []
    with bar:
        for number, rows in enumerate(shards(tokens, parameters.top_k, shard_bytes)):
            made = job.scratch / shard_name(split, number)
            if not made.exists():
                unfinished = made.with_suffix(".part")
                save_file(_top_logps(parameters, model, size, tokens, rows)._asdict(), unfinished)
                unfinished.replace(made)
            kept = TopLogps(**memory_map(made))
            rest += float(np.exp(kept.rest.astype(np.float64)).sum())
            right += int((kept.ids[:, 0] == np.concatenate([_labels(tokens, row) for row in rows])).sum())
            finished.append(made)
            bar.update(len(rows))
    positions = int(tokens.predicted_lengths.sum())
    for made in finished:
        shutil.move(made, job.output)
    means = {"rest": round(rest / positions, DIGITS), "accuracy": round(right / positions, DIGITS)} if positions else {}
    return {"rows": len(tokens), "supervised_tokens": positions, "bytes": positions * bytes_per_position(parameters.top_k), **means}


def _labels(tokens: Tokens, row: int) -> Array:
    ids, supervised = tokens.row(row)
    return ids[1:][supervised[1:] != 0]


def _top_logps(parameters: Parameters, model: Any, size: int, tokens: Tokens, rows: range) -> TopLogps:
    """The likeliest tokens at the supervised positions of ROWS, in their order."""
    import torch

    counts = tokens.predicted_lengths[rows.start : rows.stop]
    starts = np.concatenate([[0], np.cumsum(counts)])
    shape = (int(starts[-1]), parameters.top_k)
    found = TopLogps(np.zeros(shape, np.int32), np.zeros(shape, np.float16), np.zeros(shape[:1], np.float16))
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(parameters.precision)
    with torch.inference_mode(), torch.autocast(model.device.type, half) if half else nullcontext():
        for batch in batches(tokens.lengths[rows.start : rows.stop], model.config.get_text_config().vocab_size):
            inputs, labels, _ = tensors(tokens, [rows[row] for row in batch])
            given = {key: value.to(model.device) for key, value in inputs.items()}
            logits, _ = predictions(model, given, labels.to(model.device))
            if logits.shape[1] < size:
                what = f"the vocabulary has {size:,} tokens, but the teacher has {logits.shape[1]:,} logits"
                raise UserError(what, hint="its tokenizer belongs to another model")
            places = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in batch])
            for kept, values in zip(found, _likeliest(logits, size, parameters.top_k), strict=True):
                kept[places] = values.cpu().numpy()
    return found


def _likeliest(logits: Any, size: int, top_k: int) -> Iterator[Any]:
    """Ids, log-probabilities and the logarithm of the rest of the probability, of LOGITS float32 [positions, logits].

    Logits beyond the SIZE of the vocabulary, which fill up the matrix of some models, belong to the rest.
    """
    import torch

    values, ids = logits[:, :size].topk(top_k)
    total = logits.logsumexp(1)
    others = logits.scatter(1, ids, -torch.inf).logsumexp(1)
    yield ids
    # Far below what float16 has, a probability is 0; infinite logarithms of it would make 0 times infinity.
    yield (values - total[:, None]).clamp(min=_LEAST)
    yield (others - total).clamp(min=_LEAST)
