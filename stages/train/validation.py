"""Validation: the loss on held-out rows, during a training and after it, and when it says to stop."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from stages.train import Validation
from stages.train.checkpoints import Validated
from stages.train.data import Rows, collate
from stages.train.division import micro_batches
from stages.train.loss import token_loss
from stages.train.processes import Processes

_ROWS = 32


@dataclass(frozen=True)
class Validator:
    """The validation rows of each task, and what is to follow from their losses."""

    processes: Processes
    tasks: dict[str, Rows]
    section: Validation | None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    """In what numbers the model computes."""

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best validation are the result."""
        return self.section is not None and self.section.keep_best and bool(self.tasks)

    def due(self, step: int, steps: int) -> bool:
        """Whether the rows are asked after STEP of STEPS steps: now and then, and after the last one."""
        return self.section is not None and bool(self.tasks) and (step % self.section.every_steps == 0 or step == steps)

    def exhausted(self, validations: Sequence[Validated]) -> bool:
        """Whether the last validations brought nothing better."""
        if self.section is None or self.section.patience is None or not validations:
            return False
        losses = [validation.loss for validation in validations]
        return len(losses) - 1 - losses.index(min(losses)) >= self.section.patience

    def ask(self, step: int, micro_rows: int | None) -> Validated:
        """Cross entropy per supervised token after STEP steps, of all rows and of each task's, in nats, without dropout."""
        totals = self.processes.sums([self._total(rows, micro_rows) for rows in self.tasks.values()])
        counts = [int(rows.supervised().sum()) for rows in self.tasks.values()]
        tasks = {task: total / count for task, total, count in zip(self.tasks, totals, counts, strict=True)}
        return Validated(step, sum(totals) / max(1, sum(counts)), tasks)

    def _total(self, rows: Rows, micro_rows: int | None) -> float:
        """The sum over this process's share of ROWS."""
        self.processes.model.eval()
        size = min(micro_rows or _ROWS, _ROWS)
        with torch.no_grad(), self.autocast():
            return sum(self._part(rows, part) for part in micro_batches(range(len(rows)), self.processes.share, size))

    def _part(self, rows: Rows, positions: Sequence[int]) -> float:
        device = next(self.processes.model.parameters()).device
        at = list(positions) or [0]
        inputs = {name: values.to(device) for name, values in collate([rows[index] for index in at]).items()}
        labels = inputs.pop("labels")
        outputs = self.processes.forward({**inputs, "use_cache": False})
        return float(token_loss(outputs, labels, 1, not self.processes.model.config.is_encoder_decoder)) if positions else 0.0
