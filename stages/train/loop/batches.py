"""Global batches as tensors, divided over processes and into micro-batches, padded or concatenated."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from stages.tokens.files import Array
from stages.train.batching.layout import Layout
from stages.train.loop.data import Row, Rows
from stages.train.loop.division import Bound, Share, micro_batches
from stages.train.loop.isolation import PADDED, Arrangement

IGNORED = -100
"""Label of unsupervised tokens, the `ignore_index` of torch's cross entropy."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch: the model's inputs and the labels; all tensors are [lines, width]."""

    inputs: dict[str, Any]
    labels: torch.Tensor
    """Labels, int64 [lines, width]: the logits at position i - 1 predict the label at position i; IGNORED if not supervised."""
    positions: torch.Tensor
    """Position in the mixture's order of each token's row; 0 for padding."""
    offsets: torch.Tensor
    """Position of each token in its row."""
    tokens: int
    """Number of tokens, without padding."""

    def to(self, device: torch.device) -> "Batch":
        """This batch on DEVICE."""
        inputs = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in self.inputs.items()}
        return Batch(inputs, self.labels.to(device), self.positions.to(device), self.offsets.to(device), self.tokens)


class Batches:
    """Builds the micro-batches of a training.

    For each global batch and process, `micro_batches` returns lists of positions in the mixture's order, and `tensors` builds a Batch from
    each; an empty list becomes a Batch without supervised tokens, which a process computes only to take part in collectives.
    """

    def __init__(
        self, rows: Rows, layout: Layout, bound: Bound, arrangement: Arrangement = PADDED, decoder_start: int | None = None
    ) -> None:
        assert layout.flat == arrangement.flat
        self.rows, self.layout, self.bound, self.arrangement = rows, layout, bound, arrangement
        self.decoder_start = decoder_start

    @cached_property
    def _lengths(self) -> Array:
        return self.rows.lengths()

    @cached_property
    def _units(self) -> Array:
        return self.rows.units()

    def micro_batches(self, batch: range, share: Share, bound: Bound | None = None) -> list[list[int]]:
        """The micro-batches of one process for the global batch at positions BATCH; all processes have the same number."""
        first, last = np.searchsorted(self._units, [batch.start, batch.stop])
        units = self._units[first : last + 1]
        lengths = np.add.reduceat(self._lengths[batch.start : batch.stop], units[:-1] - batch.start).tolist()
        found = micro_batches(self.layout, lengths, share, bound or self.bound)
        return [[position for unit in micro for position in range(units[unit], units[unit + 1])] for micro in found]

    def largest(self, batch: range, share: Share) -> int:
        """Maximum number of rows (or bins) of BATCH per process."""
        first, last = np.searchsorted(self._units, [batch.start, batch.stop])
        return -(-int(last - first) // share.count)

    def tensors(self, positions: Sequence[int]) -> Batch:
        """The micro-batch of the rows at POSITIONS."""
        rows = [self.rows[position] for position in positions]
        if not rows:
            return self._nothing()
        if rows[0].source is not None:
            return translation(positions, rows, self.decoder_start)
        if not self.layout.flat:
            return below(positions, rows)
        return behind(self._lines(positions), dict(zip(positions, rows, strict=True)), self.arrangement)

    def _lines(self, positions: Sequence[int]) -> list[list[int]]:
        """The positions of each line of a concatenated batch: a line is a bin, or all rows if the attention needs a single line."""
        if self.arrangement.one_line or self.rows.bins is None:
            return [list(positions)]
        bins = np.searchsorted(self.rows.bins, positions, side="right")
        return [[p for p, b in zip(positions, bins, strict=True) if b == number] for number in dict.fromkeys(bins.tolist())]

    def _nothing(self) -> Batch:
        ids = np.zeros(2, np.int32)
        source = 1 if len(self.rows) and self.rows[0].source is not None else None
        row = Row(ids, np.zeros(2, np.uint8), source)
        if source:
            return translation([0], [row], self.decoder_start)
        return behind([[0]], {0: row}, self.arrangement) if self.layout.flat else below([0], [row])


def _empty(shape: tuple[int, int], *names: str) -> dict[str, Array]:
    # Padding is masked, so any id works.
    return {name: np.full(shape, IGNORED if name == "labels" else 0, np.int64) for name in names}


def _batch(arrays: dict[str, Array], tokens: int, inputs: Sequence[str], more: dict[str, Any] | None = None) -> Batch:
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    return Batch(
        {name: tensors[name] for name in inputs} | (more or {}), tensors["labels"], tensors["positions"], tensors["offsets"], tokens
    )


def below(positions: Sequence[int], rows: Sequence[Row]) -> Batch:
    """Rows as separate lines, padded on the right to the longest."""
    shape = (len(rows), max(len(row.input_ids) for row in rows))
    arrays = _empty(shape, "input_ids", "attention_mask", "labels", "positions", "offsets")
    arrays["offsets"][:] = np.arange(shape[1])
    for line, (position, row) in enumerate(zip(positions, rows, strict=True)):
        length = len(row.input_ids)
        arrays["input_ids"][line, :length] = row.input_ids
        arrays["attention_mask"][line, :length] = 1
        arrays["labels"][line, :length] = np.where(row.supervised, row.input_ids, IGNORED)
        arrays["positions"][line] = position
    arrays["labels"][:, 0] = IGNORED
    return _batch(arrays, int(arrays["attention_mask"].sum()), ("input_ids", "attention_mask"))


def behind(lines: Sequence[Sequence[int]], rows: dict[int, Row], arrangement: Arrangement) -> Batch:
    """Rows concatenated in each line; position ids restart at 0 with each row, and a line's padding is treated as one more row."""
    lengths = [[len(rows[position].input_ids) for position in line] for line in lines]
    shape = (len(lines), max(map(sum, lengths)))
    arrays = _empty(shape, "input_ids", "labels", "positions", "offsets")
    for number, line in enumerate(lines):
        start = 0
        for position in line:
            row = rows[position]
            span = slice(start, start + len(row.input_ids))
            arrays["input_ids"][number, span] = row.input_ids
            arrays["labels"][number, span] = np.where(row.supervised, row.input_ids, IGNORED)
            arrays["labels"][number, start] = IGNORED
            arrays["positions"][number, span] = position
            arrays["offsets"][number, span] = np.arange(span.stop - start)
            start = span.stop
        arrays["offsets"][number, start:] = np.arange(shape[1] - start)
    arrays["position_ids"] = arrays["offsets"]
    tokens = sum(map(sum, lengths))
    return _batch(arrays, tokens, ("input_ids", "position_ids"), arrangement.inputs(torch.from_numpy(arrays["offsets"])))


def translation(positions: Sequence[int], rows: Sequence[Row], start: int | None) -> Batch:
    """Rows of an encoder-decoder model; the decoder's input begins with the token START.

    Labels are shifted by one position relative to transformers' convention, so that the same loss serves all models.
    """
    assert start is not None, "the model's configuration has no decoder_start_token_id"
    shape = (len(rows), max(row.source or 0 for row in rows))
    arrays = _empty(shape, "input_ids", "attention_mask")
    targets = (len(rows), 1 + max(len(row.input_ids) - (row.source or 0) for row in rows))
    arrays |= _empty(targets, "decoder_input_ids", "labels", "positions", "offsets")
    arrays["decoder_input_ids"][:, 0] = start
    arrays["offsets"][:] = np.arange(targets[1])
    for line, (position, row) in enumerate(zip(positions, rows, strict=True)):
        source = row.source or 0
        answer, learned = row.input_ids[source:], row.supervised[source:]
        arrays["input_ids"][line, :source] = row.input_ids[:source]
        arrays["attention_mask"][line, :source] = 1
        arrays["decoder_input_ids"][line, 1 : len(answer) + 1] = answer
        arrays["labels"][line, 1 : len(answer) + 1] = np.where(learned, answer, IGNORED)
        arrays["positions"][line] = position
    tokens = sum(len(row.input_ids) for row in rows)
    return _batch(arrays, tokens, ("input_ids", "attention_mask", "decoder_input_ids"))
