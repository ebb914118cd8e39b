"""Body of reference: one forward pass over every answer of the pairs, without gradients."""

import json
from contextlib import nullcontext
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from engine.core.errors import UserError
from stages.models.folders import prepare_process
from stages.models.forward import batches, open_for_inference, tensors
from stages.models.projection import predictions
from stages.models.weights import token_digest, weights_digest
from stages.process.job import Job, Metrics
from stages.process.progress import Progress, progress
from stages.reference import Parameters
from stages.reference.mismatched import write_mismatched
from stages.tokens.files import Array, Tokens

SPLITS = ("train", "validation")
DIGITS = 6
"""Decimal digits of the means in the metrics."""


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `train.safetensors` and `validation.safetensors` with `logps` float32 [rows], and `reference.json`.

    `logps` are the log-probabilities (nats) of the supervised tokens of each row of the token files, summed. `reference.json` has the
    digests of the weights and of the token files, by which trainings check that the numbers are theirs. Of mismatched answers, the rows are
    those of `train-tokens.safetensors` and `validation-tokens.safetensors`, token files that are written too; there are none for validation
    rows with one prompt, which have no divergence.
    """
    prepare_process(parameters.threads)
    model = open_for_inference(job.inputs, parameters.precision, parameters.dtype, parameters.attention, parameters.quantisation)
    files = {split: job.inputs[split] for split in SPLITS}
    metrics: Metrics = {}
    for split, path in files.items():
        tokens = Tokens.open(path)
        if len(tokens) and not tokens.are_pairs and tokens.desirable is None:
            raise UserError(f"{path} has neither pairs of answers nor judged answers", hint="build its tokenize step again")
        if parameters.mismatched:
            couples = job.output / f"{split}-tokens.safetensors"
            rows, cut = len(tokens), write_mismatched(tokens, couples, needed=split == "train")
            tokens = Tokens.open(couples)
        logps = _logps(parameters, model, tokens, f"{job.name} {split}")
        save_file({"logps": logps}, job.output / f"{split}.safetensors")
        metrics[split] = _mismatched_metrics(tokens, logps, cut, rows) if parameters.mismatched else _metrics(tokens, logps)
    folders = [job.inputs["model"], *([job.inputs["adapter"]] if "adapter" in job.inputs else [])]
    said = {"model": weights_digest(folders), "tokens": {split: token_digest(path) for split, path in files.items()}}
    (job.output / "reference.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", "utf-8")
    return metrics


def _logps(parameters: Parameters, model: Any, tokens: Tokens, name: str) -> Array:
    """The log-probability of each row's answer, float32 [rows]."""
    import torch

    from stages.models.answers import answer_logps

    found = np.zeros(len(tokens), np.float32)
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(parameters.precision)
    bar: Progress[None] = progress(len(tokens), name)
    with bar, torch.inference_mode(), torch.autocast(model.device.type, half) if half else nullcontext():
        for rows in batches(tokens.lengths, model.config.get_text_config().vocab_size):
            inputs, labels, counts = tensors(tokens, rows)
            given = {key: value.to(model.device) for key, value in inputs.items()}
            logits, targets = predictions(model, given, labels.to(model.device))
            found[rows] = answer_logps(logits, targets, counts).cpu().numpy()
            bar.update(len(rows))
    return found


def _metrics(tokens: Tokens, logps: Array) -> Metrics:
    """The number of pairs, and how the reference itself judges them: means over pairs, and the share whose chosen answer is likelier.

    Of judged answers: the number of each sort, and the means over them.
    """
    if not len(logps):
        return {"pairs": 0}
    if tokens.desirable is not None:
        sorts = {name: logps[tokens.desirable == mark].astype(np.float64) for mark, name in ((1, "desirable"), (0, "undesirable"))}
        means = {f"{name}_logp": round(float(found.mean()), DIGITS) for name, found in sorts.items() if len(found)}
        return {**{name: len(found) for name, found in sorts.items()}, "tokens": int(tokens.lengths.sum()), **means}
    chosen, rejected = logps[::2].astype(np.float64), logps[1::2].astype(np.float64)
    return {
        "pairs": len(chosen),
        "tokens": int(tokens.lengths.sum()),
        "chosen_logp": round(float(chosen.mean()), DIGITS),
        "rejected_logp": round(float(rejected.mean()), DIGITS),
        "accuracy": round(float((chosen > rejected).mean()), DIGITS),
    }


def _mismatched_metrics(tokens: Tokens, logps: Array, cut: int, rows: int) -> Metrics:
    """The number of mismatched answers, how many are cut, and their mean log-probability; of ROWS with one prompt, their number alone."""
    if not len(logps):
        return {"answers": 0} | ({"rows_of_one_prompt": rows} if rows else {})
    mean = round(float(logps.astype(np.float64).mean()), DIGITS)
    return {"answers": len(logps), "cut": cut, "tokens": int(tokens.lengths.sum()), "logp": mean}
