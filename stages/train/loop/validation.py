"""Validation: the loss on held-out rows, during and after a training, and early stopping."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from engine.core.errors import UserError
from stages.models.out_of_memory import is_out_of_memory, release
from stages.models.projection import predictions
from stages.train import Validation
from stages.train.batching.none import Unsorted
from stages.train.distributed.processes import Processes
from stages.train.loop.batches import Batch, Batches
from stages.train.loop.checkpoints import Validated
from stages.train.loop.data import Rows
from stages.train.loop.distillation import Distillation
from stages.train.loop.divergence import Divergence
from stages.train.loop.division import Bound
from stages.train.loop.loss import token_loss
from stages.train.loop.preference import Preference
from stages.train.objectives.base import PairObjective
from stages.train.objectives.distill import MEASURES as DISTILLED
from stages.train.objectives.distill import Distill

_ROWS = 32


@dataclass
class Validator:
    """Computes validation losses by task; decides about early stopping."""

    processes: Processes
    tasks: dict[str, Rows]
    section: Validation | None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Precision of the model."""
    decoder_start: int | None = None
    """Decoder start token of an encoder-decoder."""
    objective: PairObjective | Distill | None = None
    """The objective; None for supervised training."""
    rows: int = _ROWS
    """Maximum number of rows per batch, which is halved if memory is short."""

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best validation are the result."""
        return self.section is not None and self.section.keep_best and bool(self.tasks)

    def due(self, step: int, steps: int) -> bool:
        """Whether to validate after STEP of STEPS steps: periodically, and after the last one."""
        return self.section is not None and bool(self.tasks) and (step % self.section.every_steps == 0 or step == steps)

    def exhausted(self, validations: Sequence[Validated]) -> bool:
        """Whether patience is exhausted: the last validations brought no improvement."""
        if self.section is None or self.section.patience is None or not validations:
            return False
        losses = [validation.loss for validation in validations]
        return len(losses) - 1 - losses.index(min(losses)) >= self.section.patience

    def ask(self, step: int, micro_rows: int | None) -> Validated:
        """Cross entropy in nats per supervised token after STEP steps, overall and by task, without dropout.

        With an objective on pairs: its loss, averaged over the pairs, with what it measures. With `distill`: its loss in place of the cross
        entropy, with what it measures.
        """
        self.rows = min(micro_rows or self.rows, self.rows)
        while True:
            try:
                return self._ask(step)
            except (MemoryError, RuntimeError) as error:
                # Other processes would wait for this one in a collective operation.
                if not is_out_of_memory(error) or self.processes.share.count > 1:
                    raise
                if self.rows == 1:
                    hint = "decrease tokenization.max_length, or use a smaller model or a larger device"
                    raise UserError("out of memory in the validation, even with batches of one row", hint=hint) from error
                print(f"validation: out of memory with batches of {self.rows} rows; going on with {self.rows // 2}", file=sys.stderr)
                self.rows //= 2
            # Outside of the handler: the traceback's frames hold the tensors that filled the memory.
            release()

    def _ask(self, step: int) -> Validated:
        if isinstance(self.objective, Distill):
            return self._ask_distilled(step, self.objective)
        if self.objective is not None:
            return self._ask_pairs(step, self.objective)
        totals = self.processes.sums([self._total(rows) for rows in self.tasks.values()])
        counts = [int(rows.supervised().sum()) for rows in self.tasks.values()]
        tasks = {task: total / count for task, total, count in zip(self.tasks, totals, counts, strict=True)}
        return Validated(step, sum(totals) / max(1, sum(counts)), tasks)

    def _ask_pairs(self, step: int, objective: PairObjective) -> Validated:
        preferences = {task: Preference(objective, rows) for task, rows in self.tasks.items()}
        found = {task: self._pairs(preference, self.tasks[task]) for task, preference in preferences.items()}
        sums = self.processes.sums([value for values in found.values() for value in values])
        # Some tasks may have fewer measures: those without a divergence.
        ends = list(accumulate(map(len, found.values())))
        by_task = {task: sums[end - len(found[task]) : end] for task, end in zip(found, ends, strict=True)}
        losses = {task: values[0] for task, values in by_task.items()}
        measures = {task: dict(zip(preferences[task].measures, values[1:], strict=True)) for task, values in by_task.items()}
        whole = sum(losses[task] * len(rows) for task, rows in self.tasks.items()) / max(1, sum(map(len, self.tasks.values())))
        return Validated(step, whole, losses, measures)

    def _ask_distilled(self, step: int, objective: Distill) -> Validated:
        found = [self._distilled(Distillation(objective, rows), rows) for rows in self.tasks.values()]
        sums = np.array(self.processes.sums([value for values in found for value in values])).reshape(len(found), 1 + len(DISTILLED))
        counts = [int(rows.supervised().sum()) for rows in self.tasks.values()]
        means = {task: (values / count).tolist() for task, values, count in zip(self.tasks, sums, counts, strict=True)}
        measures = {task: dict(zip(DISTILLED, values[1:], strict=True)) for task, values in means.items()}
        whole = sum(sums[:, 0].tolist()) / max(1, sum(counts))
        return Validated(step, whole, {task: values[0] for task, values in means.items()}, measures)

    def _distilled(self, distillation: Distillation, rows: Rows) -> list[float]:
        """This process's part of the loss and of the measures of ROWS, summed over supervised tokens."""
        self.processes.model.eval()
        maker = Batches(rows, Unsorted(), Bound(self.rows))
        found = torch.zeros(1 + len(DISTILLED), dtype=torch.float64)
        with torch.no_grad(), self.autocast():
            for positions in maker.micro_batches(range(len(rows)), self.processes.share):
                batch = maker.tensors(positions).to(next(self.processes.model.parameters()).device)
                loss, measured = distillation.part(*self._predictions(batch), positions, 1)
                found += torch.cat([loss[None], measured]).double().cpu()
        return [float(value) for value in found.tolist()]

    def _pairs(self, preference: Preference, rows: Rows) -> list[float]:
        """This process's part of the loss of the pairs of ROWS and of what is measured of them."""
        self.processes.model.eval()
        every = range(len(rows))
        kl = Divergence(rows.mismatched).estimate(self.processes, every, self.rows, self.autocast) if rows.mismatched else 0.0
        totals = preference.totals(every, kl)
        maker = Batches(rows, Unsorted(), Bound(self.rows))
        found = torch.zeros(1 + len(preference.measures), dtype=torch.float64)
        with torch.no_grad(), self.autocast():
            for positions in maker.micro_batches(every, self.processes.share):
                batch = maker.tensors(positions).to(next(self.processes.model.parameters()).device)
                loss, measured = preference.part(*self._predictions(batch), positions, totals)
                found += torch.cat([loss[None], measured]).double().cpu()
        return [float(value) for value in found.tolist()]

    def _total(self, rows: Rows) -> float:
        """Summed loss (nats) over this process's share of ROWS."""
        self.processes.model.eval()
        maker = Batches(rows, Unsorted(), Bound(self.rows), decoder_start=self.decoder_start)
        with torch.no_grad(), self.autocast():
            return sum(self._part(maker, part) for part in maker.micro_batches(range(len(rows)), self.processes.share))

    def _part(self, maker: Batches, positions: Sequence[int]) -> float:
        batch = maker.tensors(positions).to(next(self.processes.model.parameters()).device)
        return float(token_loss(*self._predictions(batch), 1))

    def _predictions(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return predictions(self.processes.model, batch.inputs, batch.labels, self.processes.forward)
