"""The rows of a training in the mixture's order, and their bins."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.core.errors import UserError
from stages.tokens.files import Array, Tokens, memory_map

if TYPE_CHECKING:
    from stages.tokens.top_logps import TopLogpFiles, TopLogps


class Row(NamedTuple):
    """Views of one row: token ids (int32 [tokens]), supervision mask (uint8 [tokens]), and the number of tokens of an encoder's input."""

    input_ids: Array
    supervised: Array
    source: int | None = None


class Rows:
    """The rows of a training, in order."""

    def __init__(
        self,
        tokens: Sequence[Tokens],
        task: Array,
        row: Array,
        bins: Array | None = None,
        logps: Sequence[Array] | None = None,
        teacher: "Sequence[TopLogpFiles]" = (),
    ) -> None:
        assert len(task) == len(row) and (bins is None or bins[-1] == len(row))
        self._tokens, self._task, self._row, self._teacher = tokens, task, row, teacher
        self.bins = bins
        """Offsets of the bins of a packed mixture, or of pairs, int64 [bins + 1]; None if each row is a unit of its own."""
        self.reference = None if logps is None else self._gather(logps).astype(np.float32)
        """Log-probability of each row's answer under the reference model, in nats, float32 [rows]; None without a reference."""
        self.mismatched: Rows | None = None
        """For each row, its prompt with the answer of another one, in the same order; None if the objective estimates no divergence."""

    @classmethod
    def open(
        cls,
        order: Path,
        tokens: Mapping[str, Path],
        logps: Mapping[str, Array] | None = None,
        teacher: "Mapping[str, TopLogpFiles] | None" = None,
    ) -> "Rows":
        """The rows of the mixture in the folder ORDER, from the token file of each task.

        With the reference's LOGPS of each task, or with what a TEACHER predicts in it.
        """
        names = json.loads((order / "tasks.json").read_text("utf-8"))
        found = [Tokens.open(tokens[name]) for name in names]
        given = [logps[name] for name in names] if logps else None
        taught = [teacher[name] for name in names] if teacher else ()
        return cls(found, **memory_map(order / "order.safetensors"), logps=given, teacher=taught)

    @classmethod
    def all_of(cls, tokens: Tokens, logps: Array | None = None, teacher: "TopLogpFiles | None" = None) -> "Rows":
        """All rows of one token file, by ascending length, to reduce padding; the two answers of a pair stay together."""
        given = None if logps is None else [logps]
        if tokens.are_pairs:
            pair = np.argsort(tokens.lengths.reshape(-1, 2).max(1), kind="stable")
            row = np.stack([2 * pair, 2 * pair + 1], 1).reshape(-1)
            return cls([tokens], np.zeros(len(row), np.int16), row, np.arange(0, len(row) + 1, 2), given)
        row = np.argsort(tokens.lengths, kind="stable")
        return cls([tokens], np.zeros(len(row), np.int16), row, teacher=[teacher] if teacher else ())

    def add_mismatched(self, tokens: Mapping[str, Tokens], logps: Mapping[str, Array]) -> None:
        """Add the mismatched answers of each task, of which row i belongs to row i of the task's token file."""
        names = sorted(tokens)
        self.mismatched = Rows([tokens[name] for name in names], self._task, self._row, logps=[logps[name] for name in names])

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> Row:
        tokens, row = self._tokens[int(self._task[index])], int(self._row[index])
        sources = getattr(tokens, "source_lengths", None)
        return Row(*tokens.row(row), None if sources is None else int(sources[row]))

    def taught(self, positions: Sequence[int]) -> "list[TopLogps]":
        """What the teacher predicts at the supervised tokens of each row at POSITIONS."""
        return [self._teacher[int(self._task[position])].of_row(int(self._row[position])) for position in positions]

    def units(self) -> Array:
        """Offsets of the units of global batches (bins, or rows if not packed), int64 [units + 1]."""
        return np.arange(len(self) + 1) if self.bins is None else self.bins

    def lengths(self) -> Array:
        """Tokens of each row, in order, int64 [rows]."""
        return self._gather([tokens.lengths for tokens in self._tokens])

    def supervised(self) -> Array:
        """Supervised tokens of each row, int64 [rows], without the first token, which is never predicted."""
        return self._gather([tokens.supervised_lengths - tokens.supervised[tokens.offsets[:-1]] for tokens in self._tokens])

    def chosen(self) -> Array:
        """Whether the answer of each row is chosen or desirable, bool [rows]; only of pairs, and of answers that were judged alone."""
        return self._gather([_marks(tokens) for tokens in self._tokens]).astype(bool)

    @property
    def are_pairs_of_answers(self) -> bool:
        """Whether rows are the chosen and rejected answers of pairs."""
        return any(tokens.are_pairs for tokens in self._tokens)

    @property
    def are_judged(self) -> bool:
        """Whether rows are answers that were judged alone."""
        return any(tokens.desirable is not None for tokens in self._tokens)

    @property
    def are_pairs(self) -> bool:
        """Whether rows have separate inputs and labels, for an encoder-decoder model."""
        return any(tokens.source_lengths is not None for tokens in self._tokens)

    def longest(self) -> int:
        """Tokens of the longest row; for an encoder-decoder, of the longest input or labels; 0 if there are no rows."""
        sides = [np.maximum(source, tokens.lengths - source) for tokens, source in self._with_sources()]
        return int(self._gather(sides).max(initial=0))

    def _with_sources(self) -> Iterator[tuple[Tokens, Array]]:
        for tokens in self._tokens:
            found = tokens.source_lengths
            yield tokens, np.zeros(len(tokens), np.int64) if found is None else found

    def largest_id(self) -> int:
        """The largest token id in the token files, -1 if they are empty."""
        return max((int(tokens.input_ids.max()) for tokens in self._tokens if len(tokens)), default=-1)

    def _gather(self, values: Sequence[Array]) -> Array:
        gathered = np.zeros(len(self), values[0].dtype if values else np.int64)
        for number, of_task in enumerate(values):
            chosen = self._task == number
            gathered[chosen] = of_task[self._row[chosen]]
        return gathered


def _marks(tokens: Tokens) -> Array:
    """1 for chosen or desirable and 0 for rejected or undesirable answers of a token file, uint8 [rows]."""
    marks = tokens.chosen if tokens.chosen is not None else tokens.desirable
    assert marks is not None, "these rows have no better and worse answers"
    return marks


def global_batches(rows: Rows, batch_rows: int, batch_tokens: int | None = None) -> list[range]:
    """The positions of each optimizer step, in order; every position is in exactly one, and only the last batch may be smaller.

    BATCH_ROWS counts bins if packed; with BATCH_TOKENS a step has as many bins or rows as fit in that many tokens, at least one.
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
    """Raise UserError if rows do not fit the model: token ids outside its vocabulary, or more tokens than it has positions."""
    if (largest := rows.largest_id()) >= vocab_size:
        hint = "they were tokenized for another model: use the tokenizer of the model that is trained"
        raise UserError(f"the {what} rows contain the token id {largest}, but the model has {vocab_size} tokens", hint=hint)
    if longest is not None and (length := rows.longest()) > longest:
        hint = f"set tokenization.max_length to at most {longest}, or use a model with more positions"
        raise UserError(f"a {what} row has {length} tokens, but the model has {longest} positions", hint=hint)


def refuse_other_pairs(rows: Rows, encoder_decoder: bool) -> None:
    """Raise UserError if rows were tokenized for an encoder-decoder model but the model is causal, or vice versa."""
    if len(rows) and rows.are_pairs != encoder_decoder:
        sort, other = ("an encoder-decoder", "a causal") if encoder_decoder else ("a causal", "an encoder-decoder")
        hint = f"set tokenization.encoder_decoder = {str(encoder_decoder).lower()}"
        raise UserError(f"the model is {sort} model, but its rows are tokenized for {other} one", hint=hint)


def refuse_single_answers(rows: Rows, on_pairs: bool, on_judged: bool = False) -> None:
    """Raise UserError if the objective is on pairs of answers (or ON_JUDGED ones) and the rows are not, or vice versa."""
    if not len(rows) or (rows.are_judged and on_judged):
        return
    if rows.are_judged or rows.are_pairs_of_answers != on_pairs:
        sort = "pairs of answers" if on_pairs else "single answers"
        other = "judged answers" if rows.are_judged else "single answers" if on_pairs else "pairs of answers"
        raise UserError(f"the objective is on {sort}, but the rows are tokenized as {other}", hint="build the tokenize step again")


def refuse_unsupervised(rows: Rows, batches: Sequence[range]) -> None:
    """Raise UserError if an optimizer step has no supervised tokens: its loss would be 0 / 0."""
    if not len(rows):
        raise UserError("the mixture has no rows to train on", hint="give its tasks more rows")
    sums = np.add.reduceat(rows.supervised(), [batch.start for batch in batches])
    if not sums.all():
        step = int(np.argmin(sums)) + 1
        hint = "choose another tokenization.mask, or a larger global_batch"
        raise UserError(f"step {step} has no supervised tokens", hint=hint)
