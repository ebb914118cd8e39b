"""Validation: the loss on held-out rows, during a training and after it, and when it says to stop."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from stages.train import Validation
from stages.train.batching.none import Unsorted
from stages.train.distributed.processes import Processes
from stages.train.loop.batches import Batches
from stages.train.loop.checkpoints import Validated
from stages.train.loop.data import Rows
from stages.train.loop.division import Bound
from stages.train.loop.loss import token_loss

_ROWS = 32


@dataclass(frozen=True)
class Validator:
    """The validation rows of each task, and what is to follow from their losses."""

    processes: Processes
    tasks: dict[str, Rows]
    section: Validation | None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    """In what numbers the model computes."""
    decoder_start: int | None = None
    """The token that a decoder with an encoder begins with."""

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
        maker = Batches(rows, Unsorted(), Bound(min(micro_rows or _ROWS, _ROWS)), decoder_start=self.decoder_start)
        with torch.no_grad(), self.autocast():
            return sum(self._part(maker, part) for part in maker.micro_batches(range(len(rows)), self.processes.share))

    def _part(self, maker: Batches, positions: Sequence[int]) -> float:
        batch = maker.tensors(positions).to(next(self.processes.model.parameters()).device)
        return float(token_loss(self.processes.forward({**batch.inputs, "use_cache": False}), batch.labels, 1))
