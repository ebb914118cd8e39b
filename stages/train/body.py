"""Body of train: trains a model or an adapter on the rows of a mixture, in the mixture's order."""

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stages.chat.taught import Taught
from stages.models.folders import count_parameters, prepare_process
from stages.models.serving import Serving
from stages.process.job import Job, Metrics
from stages.train import Parameters

if TYPE_CHECKING:
    # Started as processes of their own: what they do decides the result, so that their code belongs to the step's.
    from stages.train.distributed import worker  # noqa: F401

DIGITS = 6
"""Decimal digits of losses in the metrics: rounding keeps noise out of `dvc metrics diff`."""


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write the trained model or adapter with its serving files, and the loss curve.

    Raises UserError for rows that do not fit the model and for a failing training, Preempted if it was stopped and has saved its state.
    """
    from stages.train.distributed import launch

    # Child processes are confined to their own cores and must not inherit this process's.
    prepare_process(None if launch.is_needed(parameters) else parameters.threads)
    from stages.process.saved import saved
    from stages.train.distributed.processes import put
    from stages.train.loop.record import write_curve
    from stages.train.loop.refusals import refuse_impossible
    from stages.train.loop.training import default_device
    from stages.train.memory.peak import held_memory

    refuse_impossible(parameters)
    # Read before the training, so that errors in these files show up early.
    serving = _serving(job)
    # Memory of the libraries does not count as memory of the training.
    for library in ("transformers.modeling_utils", *parameters.method.environment):
        import_module(library)
    before = held_memory(default_device())
    earlier = found.seconds if (found := saved(job.scratch)) else 0.0
    started = time.monotonic()
    model, rows, result = _trained(parameters, job)
    seconds = earlier + time.monotonic() - started
    if result.weights is not None:
        put(result.weights, model)
    model.eval()
    parameters.method.save(model, job.output)
    serving.write(job.output)
    if job.plot:
        write_curve(result.curve, job.plot, tuple(result.curve[-1].measured()))
    metrics = _metrics(parameters, model, rows, result)
    # All attempts, since the tokens are those of the whole training.
    speed = {"training_seconds": round(seconds, 3), "tokens_per_second": round(metrics["tokens"] / seconds, 1)}
    before_it = {"earlier_seconds": earlier} if earlier else {}
    return metrics | {"_measured": speed | before_it | _memory(model, rows, result, before, parameters.batching.flat)}


def _serving(job: Job) -> Serving:
    """The serving files; raises UserError if the tokenizer or an end token of the model is unusable."""
    model, before = job.inputs["model"], job.inputs.get("adapter")
    taught = Taught.read(job.inputs.get("format"))
    return Serving.of(taught, model, job.inputs.get("vocabulary", model), [before] if before else [])


def _longest(rows: Any, flat: bool) -> Metrics:
    """Tokens of the longest row, bin or pair; in a layout that is not FLAT, both answers of a pair are padded to its longer one."""
    import numpy as np

    if rows.are_pairs_of_answers and not flat:
        return {"longest_row": 2 * int(rows.lengths().max()), "answers_of_row": 2}
    return {"longest_row": int(np.add.reduceat(rows.lengths(), rows.units()[:-1]).max())}


def _memory(model: Any, rows: Any, result: Any, before: int, flat: bool) -> Metrics:
    """Memory of the training, peak and initial memory of the process, and the row (or bin) length and micro-batch for the estimate."""
    return {
        **({"training_memory_bytes": result.training_memory_bytes} if result.training_memory_bytes else {}),
        "peak_memory_bytes": result.peak_memory_bytes,
        "memory_before_bytes": before,
        "supervised_share": round(int(rows.supervised().sum()) / int(rows.lengths().sum()), 4),
        **_longest(rows, flat),
        "micro_batch_rows": result.micro_rows,
        "attention": model.config._attn_implementation,
    }


def _trained(parameters: Parameters, job: Job) -> tuple[Any, Any, Any]:
    """Model, rows and result of the training, in this process or in child processes."""
    from stages.train.distributed import launch
    from stages.train.loop.division import Share
    from stages.train.loop.training import default_device, matter, work

    if launch.is_needed(parameters):
        result = launch.train(parameters, job)
        found = matter(parameters, job)
        return found.model, found.rows, result
    found = matter(parameters, job)
    return found.model, found.rows, work(parameters, job, found, Share(), default_device())


def _metrics(parameters: Parameters, model: Any, rows: Any, result: Any) -> Metrics:
    from stages.train.loop.data import global_batches
    from stages.train.loop.record import final_loss

    seen = global_batches(rows, parameters.global_batch.rows, parameters.global_batch.tokens)[len(result.curve) - 1].stop
    tokens = int(rows.lengths()[:seen].sum())
    return {
        "steps": len(result.curve),
        "rows": seen,
        "tokens": tokens,
        "supervised_tokens": int(rows.supervised()[:seen].sum()),
        "parameters": count_parameters(model),
        "trainable_parameters": count_parameters(model, trainable=True),
        "train_loss": round(final_loss(result.curve), DIGITS),
        "validation_loss": {task: round(loss, DIGITS) for task, loss in result.validation_loss.items()},
        **({"best_step": result.best_step} if result.best_step is not None else {}),
        **(_answers(seen, rows) if parameters.objective.on_pairs else {}),
        **(_measures(result) if result.curve[-1].measures else {}),
    }


def _answers(seen: int, rows: Any) -> Metrics:
    """The number of pairs, or of desirable answers, that the training has seen."""
    return {"pairs": seen // 2} if rows.are_pairs_of_answers else {"desirable": int(rows.chosen()[:seen].sum())}


def _measures(result: Any) -> Metrics:
    """What the objective measured: of the training's last tenth of steps, as its loss, and of the held-out rows by task."""
    last = [point.measured() for point in result.curve[-max(1, len(result.curve) // 10) :]]
    means = {name: sum(point[name] for point in last) / len(last) for name in last[0]}
    held_out = {task: _rounded(found) for task, found in sorted(result.validation_measures.items())}
    return {"train": _rounded(means), "validation": held_out}


def _rounded(measures: dict[str, float]) -> Metrics:
    return {name: round(value, DIGITS) for name, value in measures.items()}
