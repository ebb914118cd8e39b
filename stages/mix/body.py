"""The work of mix: which row of which task comes when, over all epochs."""

import json

import numpy as np
from safetensors.numpy import save_file

from engine.errors import UserError
from stages.common.hashing import seed_from
from stages.common.job import Job, Metrics
from stages.common.tokens import Array, Tokens
from stages.mix import Parameters


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `order.safetensors` (task int16 [rows], row int32 [rows]) and `tasks.json`, the names in the order of the task numbers."""
    paths = job.group("tokens")
    tokens = {task: Tokens.open(paths[task]) for task in sorted(paths)}
    sizes = {task: len(rows) for task, rows in tokens.items()}
    _refuse_empty(sizes)
    per_epoch = parameters.sampler.rows_per_epoch(sizes)
    task, row = order(sizes, per_epoch, parameters)
    save_file({"task": task, "row": row}, job.output / "order.safetensors")
    (job.output / "tasks.json").write_text(json.dumps(list(tokens), indent=1) + "\n", "utf-8")
    epochs = len(task) / sum(per_epoch.values())
    return {"rows": len(task), "epochs": round(epochs, 6), "tasks": shares(tokens, task, row)}


def _refuse_empty(sizes: dict[str, int]) -> None:
    for task, rows in sizes.items():
        if not rows:
            hint = "the metrics of its split and token steps say what was left out; or take it out of the mixture"
            raise UserError(f"task '{task}' has no rows to train on", hint=hint)


def order(sizes: dict[str, int], per_epoch: dict[str, int], parameters: Parameters) -> tuple[Array, Array]:
    """Task numbers (int16) and row numbers (int32) of the whole training; the order of SIZES numbers the tasks."""
    assert len(sizes) <= np.iinfo(np.int16).max and max(sizes.values()) <= np.iinfo(np.int32).max
    counts = np.array([per_epoch[task] for task in sizes])
    streams = [Stream(task, rows, parameters.seed) for task, rows in sizes.items()]
    epochs = [epoch_order(epoch, counts, streams, parameters.seed) for epoch in range(_epochs(parameters, int(counts.sum())))]
    tasks, rows = zip(*epochs, strict=True)
    return np.concatenate(tasks)[: parameters.rows], np.concatenate(rows)[: parameters.rows]


def _epochs(parameters: Parameters, rows_per_epoch: int) -> int:
    """How many epochs are begun."""
    assert not (parameters.epochs and parameters.rows) and rows_per_epoch > 0
    return -(-parameters.rows // rows_per_epoch) if parameters.rows else parameters.epochs or 1


def epoch_order(epoch: int, counts: Array, streams: list["Stream"], seed: int) -> tuple[Array, Array]:
    """One epoch: COUNTS[i] rows of task i, tasks shuffled together, each task's rows in the order of its stream.

    Shuffling which task comes when, in place of the rows themselves, keeps every stream's promise inside an epoch too;
    it is as random, since the streams are.
    """
    task = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    _generator("epoch", seed, epoch).shuffle(task)
    row = np.empty(len(task), np.int32)
    for number, stream in enumerate(streams):
        row[task == number] = stream.take(int(counts[number]))
    return task, row


class Stream:
    """The rows of one task without end, permutation after permutation: no row comes k + 2 times before every other came k times.

    It depends on the seed, the task's name and its number of rows, not on the other tasks.
    """

    def __init__(self, task: str, rows: int, seed: int) -> None:
        self._task, self._rows, self._seed = task, rows, seed
        self._passes = 0
        self._left: Array = np.zeros(0, np.int32)

    def take(self, count: int) -> Array:
        """The next COUNT row numbers, int32."""
        parts = [self._left]
        missing = count - len(self._left)
        while missing > 0:
            parts.append(self._permutation())
            missing -= self._rows
        rows = np.concatenate(parts)
        self._left = rows[count:]
        return rows[:count]

    def _permutation(self) -> Array:
        generator = _generator("pass", self._seed, self._task, self._passes)
        self._passes += 1
        return generator.permutation(self._rows).astype(np.int32)


def _generator(*values: object) -> np.random.Generator:
    """A generator decided by VALUES; PCG64 is named because numpy may change its default."""
    return np.random.Generator(np.random.PCG64(seed_from(*values)))


def shares(tokens: dict[str, Tokens], task: Array, row: Array) -> Metrics:
    """What each task really gives: rows, tokens and supervised tokens, their shares, and how often its rows are gone through."""
    amounts = {name: _amounts(found, row[task == number]) for number, (name, found) in enumerate(tokens.items())}
    totals = {unit: sum(amount[unit] for amount in amounts.values()) for unit in ("rows", "tokens", "supervised_tokens")}
    return {
        name: amount
        | {f"share_of_{unit}": round(amount[unit] / total, 6) for unit, total in totals.items()}
        | {"passes": round(amount["rows"] / len(tokens[name]), 6)}
        for name, amount in amounts.items()
    }


def _amounts(tokens: Tokens, rows: Array) -> dict[str, int]:
    used = np.bincount(rows, minlength=len(tokens))
    return {"rows": len(rows), "tokens": int(used @ tokens.lengths), "supervised_tokens": int(used @ tokens.supervised_lengths)}
