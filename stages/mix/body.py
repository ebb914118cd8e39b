"""Body of mix: the order of rows over all epochs, and the bins of packed rows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save_file

from engine.core.errors import UserError
from stages.mix import Parameters
from stages.mix.packing import packed
from stages.mix.samplers.sizes import Size
from stages.process.hashing import seed_from
from stages.process.job import Job, Metrics
from stages.tokens.files import Array, Tokens


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `order.safetensors` and `tasks.json`, the task names by number.

    Tensors: `task` int16 [rows], `row` int32 [rows]; if packed, `bins` int64 [bins + 1]: bin i contains rows bins[i]:bins[i + 1] of the
    order. The two answers of a pair are neighbours, and if not packed, each pair is a bin.
    """
    paths = job.group("tokens")
    tokens = {task: Tokens.open(paths[task]) for task in sorted(paths)}
    _refuse_unusable(tokens, parameters.bin_tokens)
    phases = parameters.sampler.phases({task: _size(rows) for task, rows in tokens.items()})
    units = Mixing(tokens, phases, parameters).order()
    mixture = with_both_answers(units) if _are_pairs(tokens) else units
    tensors = {"task": mixture.task, "row": mixture.row} | ({} if mixture.bins is None else {"bins": mixture.bins})
    save_file(tensors, job.output / "order.safetensors")
    (job.output / "tasks.json").write_text(json.dumps(list(tokens), indent=1) + "\n", "utf-8")
    epochs = len(units) / sum(sum(phase.values()) for phase in phases)
    metrics = {"rows": len(units), "epochs": round(epochs, 6), "tasks": shares(tokens, mixture)}
    return metrics | (_packing(metrics, units.bins, parameters.bin_tokens or 1) if units.bins is not None else {})


@dataclass(frozen=True)
class Order:
    """Task (int16 [rows]) and row number (int32 [rows]) of each row of the training; if packed, offsets of the bins (int64 [bins + 1])."""

    task: Array
    row: Array
    bins: Array | None = None

    def __len__(self) -> int:
        return len(self.task)

    def cut(self, units: int) -> "Order":
        """The first UNITS bins, or rows if not packed."""
        rows = units if self.bins is None else int(self.bins[: units + 1][-1])
        return Order(self.task[:rows], self.row[:rows], None if self.bins is None else self.bins[: units + 1])

    @property
    def units(self) -> int:
        """Number of bins, or of rows if not packed."""
        return len(self) if self.bins is None else len(self.bins) - 1


def joined(parts: Sequence[Order]) -> Order:
    """PARTS concatenated."""
    task, row = (np.concatenate([getattr(part, name) for part in parts]) for name in ("task", "row"))
    if parts[0].bins is None:
        return Order(task, row)
    sizes = [np.diff(part.bins) for part in parts if part.bins is not None]
    return Order(task, row, np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64))


def with_both_answers(pairs: Order) -> Order:
    """The rows of PAIRS, whose row numbers are those of pairs: the chosen answer of each, then the rejected one."""
    row = np.repeat(pairs.row * 2, 2)
    row[1::2] += 1
    bins = np.arange(len(pairs) + 1, dtype=np.int64) if pairs.bins is None else pairs.bins
    return Order(np.repeat(pairs.task, 2), row, bins * 2)


class Mixing:
    """Orders the rows of TOKENS by PHASES (rows by task), epoch after epoch, until the training is long enough."""

    def __init__(self, tokens: Mapping[str, Tokens], phases: Sequence[Mapping[str, int]], parameters: Parameters) -> None:
        self.tokens, self.phases, self.parameters = tokens, phases, parameters
        self.streams = [Stream(task, rows.units, parameters.seed, rows.conversations) for task, rows in tokens.items()]
        self.lengths = [_unit_lengths(rows) for rows in tokens.values()]
        assert len(tokens) <= np.iinfo(np.int16).max and max(len(rows) for rows in tokens.values()) <= np.iinfo(np.int32).max

    def order(self) -> Order:
        """The whole training."""
        parameters = self.parameters
        assert sum(value is not None for value in (parameters.epochs, parameters.rows, parameters.tokens)) <= 1
        parts: list[Order] = []
        for part in self._parts():
            parts.append(part)
            if self._enough(parts):
                break
        return self._cut(joined(parts))

    def _parts(self) -> Iterator[Order]:
        """The phases of epoch after epoch, endlessly."""
        epoch = 0
        while True:
            for number, phase in enumerate(self.phases):
                yield self._phase(phase, epoch, number)
            epoch += 1

    def _enough(self, parts: Sequence[Order]) -> bool:
        if self.parameters.rows is not None:
            return sum(part.units for part in parts) >= self.parameters.rows
        if self.parameters.tokens is not None:
            return sum(int(self._lengths(part).sum()) for part in parts) >= self.parameters.tokens
        return len(parts) == (self.parameters.epochs or 1) * len(self.phases)

    def _cut(self, order: Order) -> Order:
        if self.parameters.rows is not None:
            return order.cut(self.parameters.rows)
        if self.parameters.tokens is not None:
            lengths = self._lengths(order)
            ends = np.cumsum(lengths) if order.bins is None else np.concatenate([[0], np.cumsum(lengths)])[order.bins[1:]]
            return order.cut(max(1, int(np.searchsorted(ends, self.parameters.tokens, side="right"))))
        return order

    def _phase(self, phase: Mapping[str, int], epoch: int, number: int) -> Order:
        """The rows of one phase, tasks shuffled together, each task's rows in the order of its stream.

        Shuffling the sequence of tasks instead of the rows preserves every stream's guarantee within a phase, and is as random, because
        the streams are.
        """
        counts = np.array([phase.get(task, 0) for task in self.tokens])
        task = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
        # The first phase has the seed name of an epoch without phases, so that existing mixtures keep their order.
        later = (number,) if number else ()
        generator("epoch", self.parameters.seed, epoch, *later).shuffle(task)
        row = np.empty(len(task), np.int32)
        for index, stream in enumerate(self.streams):
            row[task == index] = stream.take(int(counts[index]))
        order = Order(task, row)
        return order if self.parameters.bin_tokens is None else self._packed(order, self.parameters.bin_tokens, epoch, number)

    def _packed(self, order: Order, capacity: int, epoch: int, phase: int) -> Order:
        """The rows of ORDER in bins, in random order of bins, since packing starts with the longest rows."""
        bins, count = packed(self._lengths(order), capacity)
        places = generator("bins", self.parameters.seed, epoch, phase).permutation(count)
        bins = places[bins]
        by_bin = np.argsort(bins, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(bins, minlength=count))]).astype(np.int64)
        return Order(order.task[by_bin], order.row[by_bin], offsets)

    def _lengths(self, order: Order) -> Array:
        """Tokens of each row of ORDER, int64 [rows]."""
        found = np.empty(len(order), np.int64)
        for number, lengths in enumerate(self.lengths):
            chosen = order.task == number
            found[chosen] = lengths[order.row[chosen]]
        return found


class Stream:
    """An endless sequence of one task's rows, permutation after permutation: no row occurs k + 2 times before every other occurs k times.

    It depends on the seed, the task's name and its number of rows, not on the other tasks. If CONVERSATIONS groups rows, each pass takes
    one row of each conversation and the next pass the next one, so a conversation counts once per pass and its turns rotate.
    """

    def __init__(self, task: str, rows: int, seed: int, conversations: Array | None = None) -> None:
        self._task, self._rows, self._seed = task, rows, seed
        self._sizes = None if conversations is None else np.bincount(conversations, minlength=rows)
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
        drawn = generator("pass", self._seed, self._task, self._passes).permutation(self._rows)
        if self._sizes is not None:
            begins = np.cumsum(self._sizes) - self._sizes
            # Conversations start at different turns; otherwise a training of one epoch would see only first turns.
            turns = (generator("turns", self._seed, self._task).integers(0, self._sizes) + self._passes) % self._sizes
            drawn = (begins + turns)[drawn]
        self._passes += 1
        return drawn.astype(np.int32)


def generator(*values: object) -> np.random.Generator:
    """A generator seeded by VALUES; explicitly PCG64, because numpy may change its default."""
    return np.random.Generator(np.random.PCG64(seed_from(*values)))


def shares(tokens: Mapping[str, Tokens], order: Order) -> Metrics:
    """Actual amounts by task: rows, tokens and supervised tokens, their shares, and the number of passes over its rows."""
    amounts = {name: _amounts(found, order.row[order.task == number]) for number, (name, found) in enumerate(tokens.items())}
    totals = {unit: sum(amount[unit] for amount in amounts.values()) for unit in ("rows", "tokens", "supervised_tokens")}
    return {
        name: amount
        | {f"share_of_{unit}": round(amount[unit] / total, 6) for unit, total in totals.items()}
        | {"passes": round(amount["rows"] / tokens[name].units, 6)}
        for name, amount in amounts.items()
    }


def _amounts(tokens: Tokens, rows: Array) -> dict[str, int]:
    used = np.bincount(rows, minlength=len(tokens))
    units = len(rows) // 2 if tokens.are_pairs else len(rows)
    return {"rows": units, "tokens": int(used @ tokens.lengths), "supervised_tokens": int(used @ tokens.supervised_lengths)}


def _are_pairs(tokens: Mapping[str, Tokens]) -> bool:
    """Whether the rows of all tasks are pairs; raises UserError if only some are."""
    paired = {task: rows.are_pairs for task, rows in tokens.items()}
    if len(set(paired.values())) > 1:
        one, other = (next(task for task, found in paired.items() if found == kind) for kind in (True, False))
        raise UserError(f"the rows of task '{one}' are pairs, and those of '{other}' are not", hint="train on one sort of rows")
    return any(paired.values())


def _unit_lengths(tokens: Tokens) -> Array:
    """Tokens of each row, or of both answers of each pair, int64."""
    return tokens.lengths.reshape(-1, 2).sum(1) if tokens.are_pairs else tokens.lengths


def _size(tokens: Tokens) -> Size:
    if tokens.are_pairs:
        return Size(tokens.units, int(tokens.lengths.sum()), int(tokens.supervised_lengths.sum()))
    whole = Size(len(tokens), int(tokens.lengths.sum()), int(tokens.supervised_lengths.sum()))
    return whole if tokens.conversations is None else whole.scaled(tokens.units)


def _packing(metrics: Metrics, bins: Array, capacity: int) -> Metrics:
    count = len(bins) - 1
    tokens = sum(task["tokens"] for task in metrics["tasks"].values())
    return {"bins": count, "packing_efficiency": round(tokens / (count * capacity), 6)}


def _refuse_unusable(tokens: Mapping[str, Tokens], capacity: int | None) -> None:
    for task, rows in tokens.items():
        if not len(rows):
            hint = "see left_out in the metrics of its split and tokenize steps; or remove it from the mixture"
            raise UserError(f"task '{task}' has no rows to train on", hint=hint)
        if capacity is not None and (longest := int(_unit_lengths(rows).max())) > capacity:
            what = "a pair" if rows.are_pairs else "a row"
            lower = f"tokenization.max_length to at most {capacity // 2 if rows.are_pairs else capacity}"
            hint = f"set training.batching.length to at least {longest}, or {lower}"
            raise UserError(f"{what} of task '{task}' has {longest} tokens, more than a bin of {capacity}", hint=hint)
