"""The work of train: a model or an adapter learns from the rows of a mixture, in the mixture's order."""

import resource
import sys
import time
from typing import Any

from stages.common.job import Job, Metrics
from stages.common.models import copy_tokenizer, count_parameters, load_model, longest_sequence, prepare_process
from stages.common.vocabulary import extend
from stages.train import Parameters
from stages.train.data import Rows, global_batches, refuse_misfits, refuse_unsupervised

DIGITS = 6
"""Losses are rounded to so many digits in the metrics, so that their diffs are about something."""

_VALIDATION_ROWS = 32


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write the trained model or adapter, and the loss curve; raises UserError for rows that do not fit and a training that diverges."""
    import torch

    prepare_process(parameters.threads)
    from stages.train.record import final_loss, write_curve
    from stages.train.trainer import train

    model = load_model(job.inputs["model"])
    if "vocabulary" in job.inputs:
        extend(model, job.inputs["vocabulary"])
    rows, validation = _open_rows(parameters, job, model.config)
    torch.manual_seed(parameters.seed)
    model = parameters.method.prepare(model)
    started = time.monotonic()
    curve = train(model, rows, parameters, job.scratch)
    seconds = time.monotonic() - started
    parameters.method.save(model, job.output)
    if not parameters.method.makes_adapter:
        copy_tokenizer(job.inputs.get("vocabulary", job.inputs["model"]), job.output)
    if job.plot:
        write_curve(curve, job.plot)
    tokens = int(rows.lengths().sum())
    return {
        "steps": len(curve),
        "rows": len(rows),
        "tokens": tokens,
        "supervised_tokens": int(rows.supervised().sum()),
        "parameters": count_parameters(model),
        "trainable_parameters": count_parameters(model, trainable=True),
        "train_loss": round(final_loss(curve), DIGITS),
        "validation_loss": {task: round(mean_loss(model, held_out, parameters), DIGITS) for task, held_out in validation.items()},
        "_measured": {
            "training_seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1),
            "peak_memory_bytes": _peak_memory(),
        },
    }


def _open_rows(parameters: Parameters, job: Job, config: Any) -> tuple[Rows, dict[str, Rows]]:
    """The rows to train on, and the validation rows of each task that has any; raises UserError for rows that do not fit the model."""
    from stages.common.tokens import Tokens

    rows = Rows.open(job.inputs["order"], job.group("tokens"))
    opened = {task: Rows.all_of(Tokens.open(path)) for task, path in sorted(job.group("validation").items())}
    validation = {task: held_out for task, held_out in opened.items() if held_out.supervised().sum()}
    longest = longest_sequence(config)
    refuse_misfits(rows, config.vocab_size, longest, "training")
    for task, held_out in validation.items():
        refuse_misfits(held_out, config.vocab_size, longest, f"validation ({task})")
    refuse_unsupervised(rows, global_batches(rows, parameters.global_batch.rows))
    return rows, validation


def mean_loss(model: Any, rows: Rows, parameters: Parameters) -> float:
    """Cross entropy per supervised token of ROWS, in nats, without dropout."""
    import torch

    from stages.train.batches import below
    from stages.train.trainer import token_loss

    size = min(parameters.micro_batch or _VALIDATION_ROWS, _VALIDATION_ROWS)
    total = 0.0
    model.eval()
    with torch.no_grad():
        for positions in global_batches(rows, size):
            batch = below(positions, [rows[position] for position in positions]).to(model.device)
            total += float(token_loss(model(**batch.inputs, use_cache=False), batch.labels, 1))
    return total / int(rows.supervised().sum())


def _peak_memory() -> int:
    """The largest amount of main memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes: getrusage(2) of each.
    return peak if sys.platform == "darwin" else peak * 1024
