"""Distillation in the training loop: the teacher's predictions for the rows of a batch, and the loss of them."""

import json
from collections.abc import Sequence

import numpy as np
import torch

from engine.core.errors import UserError
from stages.models.weights import token_digest
from stages.process.job import Job
from stages.tokens.files import Tokens
from stages.tokens.top_logps import TopLogpFiles
from stages.train.loop.data import Rows
from stages.train.objectives.distill import MEASURES, Distill, Taught


def teacher_logps(job: Job, vocab_size: int) -> dict[str, dict[str, TopLogpFiles]]:
    """By split (`train`, `validation`) and task, what the teacher predicts.

    Raises UserError if it was computed for other tokens, or for a vocabulary of more than the VOCAB_SIZE logits of the student.
    """
    tokens = {"train": job.group("tokens"), "validation": job.group("validation")}
    found: dict[str, dict[str, TopLogpFiles]] = {split: {} for split in tokens}
    for task, folder in sorted(job.group("logits").items()):
        said = json.loads((folder / "logits.json").read_text("utf-8"))
        if (size := said["vocabulary"]["size"]) > vocab_size:
            what = f"the vocabulary of task '{task}' has {size:,} tokens, but the model has {vocab_size:,} logits"
            raise UserError(what, hint="its tokenizer belongs to another model")
        for split, files in tokens.items():
            if said["tokens"][split] != token_digest(files[task]):
                what = f"the logits of task '{task}' were computed for other {split} tokens"
                raise UserError(what, hint="build the logits step again")
            found[split][task] = TopLogpFiles(folder, split, Tokens.open(files[task]))
    return found


class Distillation:
    """The objective `distill` on ROWS, independent of the division of a global batch."""

    def __init__(self, objective: Distill, rows: Rows) -> None:
        self.objective, self._rows = objective, rows

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of what is measured."""
        return MEASURES

    def part(self, logits: torch.Tensor, targets: torch.Tensor, positions: Sequence[int], tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The parts of the loss (with its graph) and of the objective's measures, float32, of the rows at POSITIONS.

        They sum to those of a global batch with this number of supervised TOKENS. LOGITS [tokens, vocabulary] are those that predict the
        supervised tokens of these rows, TARGETS.
        """
        return self.objective.loss_of(logits, targets, self._taught(positions, logits.device), tokens)

    def _taught(self, positions: Sequence[int], device: torch.device) -> Taught:
        found = self._rows.taught(positions)
        if not found:
            # A micro-batch without rows, which a process computes only to take part in collectives.
            nothing = torch.zeros((0, 1), device=device)
            return Taught(nothing.long(), nothing, nothing[:, 0])
        ids, logps, rest = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Taught(
            torch.from_numpy(ids.astype(np.int64)).to(device),
            *(torch.from_numpy(values.astype(np.float32)).to(device) for values in (logps, rest)),
        )
