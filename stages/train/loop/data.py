"""The rows of a training in the mixture's order, and the bins they are packed into."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.core.errors import UserError
from stages.tokens.files import Array, Tokens, memory_map


class Row(NamedTuple):
    """Views of one row: token ids (int32), the mask (uint8) of the supervised ones, and how many of them are an encoder's input."""

    input_ids: Array
    supervised: Array
    source: int | None = None


class Rows:
    """The rows of a training, in order."""

    def __init__(self, tokens: Sequence[Tokens], task: Array, row: Array, bins: Array | None = None) -> None:
        assert len(task) == len(row) and (bins is None or bins[-1] == len(row))
        self._tokens, self._task, self._row = tokens, task, row
        self.bins = bins
        """Where each bin of a packed mixture begins, int64 [bins + 1]; None where rows are not packed."""

    @classmethod
    def open(cls, order: Path, tokens: Mapping[str, Path]) -> "Rows":
        """The rows that the mixture in the folder ORDER names, from the token file of each task."""
        names = json.loads((order / "tasks.json").read_text("utf-8"))
        return cls([Tokens.open(tokens[name]) for name in names], **memory_map(order / "order.safetensors"))

    @classmethod
    def all_of(cls, tokens: Tokens) -> "Rows":
        """All rows of one token file, the short ones first, so that batches need little padding."""
        row = np.argsort(tokens.lengths, kind="stable")
        return cls([tokens], np.zeros(len(row), np.int16), row)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> Row:
        tokens, row = self._tokens[int(self._task[index])], int(self._row[index])
        sources = getattr(tokens, "source_lengths", None)
        return Row(*tokens.row(row), None if sources is None else int(sources[row]))

    def units(self) -> Array:
        """Where each bin begins, or each row where they are not packed, int64 [units + 1]: what global batches are made of."""
        return np.arange(len(self) + 1) if self.bins is None else self.bins

    def lengths(self) -> Array:
        """Tokens of each row, in order, int64 [rows]."""
        return self._gather([tokens.lengths for tokens in self._tokens])

    def supervised(self) -> Array:
        """Tokens of each row that something is learnt from, int64 [rows]; not the first one, which no token before it predicts."""
        return self._gather([tokens.supervised_lengths - tokens.supervised[tokens.offsets[:-1]] for tokens in self._tokens])

    @property
    def are_pairs(self) -> bool:
        """Whether rows have inputs and labels of their own, as an encoder-decoder model wants them."""
        return any(tokens.source_lengths is not None for tokens in self._tokens)

    def longest(self) -> int:
        """Tokens of the longest row; of pairs, of the longest input or labels, which no attention sees together; 0 where there are none."""
        sides = [np.maximum(source, tokens.lengths - source) for tokens, source in self._with_sources()]
        return int(self._gather(sides).max(initial=0))

    def _with_sources(self) -> Iterator[tuple[Tokens, Array]]:
        for tokens in self._tokens:
            found = tokens.source_lengths
            yield tokens, np.zeros(len(tokens), np.int64) if found is None else found

    def largest_id(self) -> int:
        """The largest token id in the token files, -1 where they are empty."""
        return max((int(tokens.input_ids.max()) for tokens in self._tokens if len(tokens)), default=-1)

    def _gather(self, values: Sequence[Array]) -> Array:
        gathered = np.zeros(len(self), np.int64)
        for number, of_task in enumerate(values):
            chosen = self._task == number
            gathered[chosen] = of_task[self._row[chosen]]
        return gathered


def global_batches(rows: Rows, batch_rows: int, batch_tokens: int | None = None) -> list[range]:
    """The positions that each optimizer step learns from, in order; every position is in exactly one, and only the last may be smaller.

    BATCH_ROWS counts bins where rows are packed; with BATCH_TOKENS a step has as many bins or rows as fit in so many tokens, one at least.
    """
    units = rows.units()
    count = len(units) - 1
    if batch_tokens is None:
        cuts = [*range(0, count, batch_rows), count]
    else:
        ends = np.concatenate([[0], np.cumsum(rows.lengths())])[units]
        cuts = [0]
        while cuts[-1] < count:
            fitting = int(np.searchsorted(ends, ends[cuts[-1]] + batch_tokens, side="right")) - 1
            cuts.append(max(fitting, cuts[-1] + 1))
    return [range(int(units[a]), int(units[b])) for a, b in pairwise(cuts) if b > a]


def refuse_misfits(rows: Rows, vocab_size: int, longest: int | None, what: str) -> None:
    """Raise UserError where a row is no matter for the model: ids that it does not know, or more tokens than it has positions for."""
    if (largest := rows.largest_id()) >= vocab_size:
        hint = "they come from another model's tokenizer: tokenize with the tokenizer of the model that is trained"
        raise UserError(f"the {what} rows hold the token id {largest}, but the model knows {vocab_size} tokens", hint=hint)
    if longest is not None and (length := rows.longest()) > longest:
        hint = f"set tokenization.max_length to at most {longest}, or take a model with more positions"
        raise UserError(f"a {what} row has {length} tokens, but the model has {longest} positions", hint=hint)


def refuse_other_pairs(rows: Rows, encoder_decoder: bool) -> None:
    """Raise UserError where rows are tokenized for an encoder-decoder model and the model is none, or the other way round."""
    if len(rows) and rows.are_pairs != encoder_decoder:
        sort, other = ("an encoder-decoder", "a causal") if encoder_decoder else ("a causal", "an encoder-decoder")
        hint = f"set tokenization.encoder_decoder = {str(encoder_decoder).lower()}"
        raise UserError(f"the model is {sort} model, but its rows are tokenized for {other} one", hint=hint)


def refuse_unsupervised(rows: Rows, batches: Sequence[range]) -> None:
    """Raise UserError where an optimizer step would have nothing to learn from: its loss would be 0 / 0."""
    if not len(rows):
        raise UserError("the mixture has no rows to train on", hint="give its tasks more rows")
    sums = np.add.reduceat(rows.supervised(), [batch.start for batch in batches])
    if not sums.all():
        step = int(np.argmin(sums)) + 1
        hint = "choose another tokenization.mask, or a larger global_batch"
        raise UserError(f"step {step} has no supervised token to learn from", hint=hint)
