"""The rows of a training in the mixture's order, and as tensors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import UserError
from stages.common.tokens import Array, Tokens, memory_map
from stages.train import GlobalBatch
from stages.train.division import global_batches

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The label of a token that nothing is learnt from, as torch's cross entropy has it."""

Row = tuple[Array, Array]
"""Token ids (int32) and the mask (uint8) of the supervised ones."""


class Rows:
    """The rows of a training, in order; an item is (token ids, supervised mask)."""

    def __init__(self, tokens: Sequence[Tokens], task: Array, row: Array) -> None:
        assert len(task) == len(row)
        self._tokens, self._task, self._row = tokens, task, row

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
        tokens = self._tokens[int(self._task[index])]
        return tokens.row(int(self._row[index]))

    def lengths(self) -> Array:
        """Tokens of each row, in order, int64 [rows]."""
        return self._gather([tokens.lengths for tokens in self._tokens])

    def supervised(self) -> Array:
        """Tokens of each row that something is learnt from, int64 [rows]; not the first one, which no token before it predicts."""
        return self._gather([tokens.supervised_lengths - tokens.supervised[tokens.offsets[:-1]] for tokens in self._tokens])

    def largest_id(self) -> int:
        """The largest token id in the token files, -1 where they are empty."""
        return max((int(tokens.input_ids.max()) for tokens in self._tokens if len(tokens)), default=-1)

    def _gather(self, values: Sequence[Array]) -> Array:
        gathered = np.zeros(len(self), np.int64)
        for number, of_task in enumerate(values):
            chosen = self._task == number
            gathered[chosen] = of_task[self._row[chosen]]
        return gathered


def collate(rows: Sequence[Row]) -> dict[str, "Tensor"]:
    """Tensors [rows, longest row]: input_ids, attention_mask and labels (int64), padded on the right."""
    import torch

    shape = (len(rows), max(len(input_ids) for input_ids, _ in rows))
    # Any id will do as padding: on the right, no token before it can see it.
    batch: dict[str, Any] = {"input_ids": np.zeros(shape, np.int64), "attention_mask": np.zeros(shape, np.int64)}
    batch["labels"] = np.full(shape, IGNORED, np.int64)
    for number, (input_ids, supervised) in enumerate(rows):
        length = len(input_ids)
        batch["input_ids"][number, :length] = input_ids
        batch["attention_mask"][number, :length] = 1
        batch["labels"][number, :length] = np.where(supervised, input_ids, IGNORED)
    batch["labels"][:, 0] = IGNORED
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def refuse_misfits(rows: Rows, vocab_size: int, longest: int | None, what: str) -> None:
    """Raise UserError where a row is no matter for the model: ids that it does not know, or more tokens than it has positions for."""
    if (largest := rows.largest_id()) >= vocab_size:
        hint = "they come from another model's tokenizer: tokenize with the tokenizer of the model that is trained"
        raise UserError(f"the {what} rows hold the token id {largest}, but the model knows {vocab_size} tokens", hint=hint)
    if longest is not None and len(rows) and (length := int(rows.lengths().max())) > longest:
        hint = f"set tokenization.max_length to at most {longest}, or take a model with more positions"
        raise UserError(f"a {what} row has {length} tokens, but the model has {longest} positions", hint=hint)


def refuse_unsupervised(rows: Rows, batch: GlobalBatch) -> None:
    """Raise UserError where an optimizer step would have nothing to learn from: its loss would be 0 / 0."""
    if not len(rows):
        raise UserError("the mixture has no rows to train on", hint="give its tasks more rows")
    sums = np.add.reduceat(rows.supervised(), [positions.start for positions in global_batches(rows.lengths(), batch)])
    if not sums.all():
        step = int(np.argmin(sums)) + 1
        hint = "choose another tokenization.mask, or a larger global_batch"
        raise UserError(f"step {step} has no supervised token to learn from", hint=hint)
