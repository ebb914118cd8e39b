"""The training loop: global batches in the mixture's order, gradients independent of their division, resumable at every step."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from engine.core.errors import UserError
from stages.models.out_of_memory import is_out_of_memory, release
from stages.models.projection import predictions
from stages.process.job import Preempted
from stages.train import Parameters
from stages.train.distributed.processes import Processes
from stages.train.logging.observer import Watcher
from stages.train.loop.batches import Batches
from stages.train.loop.checkpoints import Checkpoint, Checkpoints, Progress
from stages.train.loop.data import Rows, global_batches
from stages.train.loop.distillation import Distillation
from stages.train.loop.divergence import Divergence
from stages.train.loop.division import Bound
from stages.train.loop.dropout import RowKeys
from stages.train.loop.guards import StopRequest, refuse_bad_course
from stages.train.loop.loss import token_loss
from stages.train.loop.precision import autocast
from stages.train.loop.preference import Preference
from stages.train.loop.record import Point
from stages.train.loop.schedule import factor
from stages.train.loop.timing import Due
from stages.train.loop.validation import Validator
from stages.train.objectives.base import Totals


@dataclass
class Trainer:
    """One training: its data and its progress."""

    processes: Processes
    rows: Rows
    maker: Batches
    """Builder of micro-batches."""
    parameters: Parameters
    keys: RowKeys
    checkpoints: Checkpoints
    validator: Validator
    watcher: Watcher
    stop: StopRequest
    preference: Preference | None = None
    """The objective on pairs of answers, if it is one."""
    distillation: Distillation | None = None
    """The objective `distill`, if it is that."""
    divergence: Divergence | None = field(init=False)
    """What estimates how far the model is from its reference; None if the objective does not need it."""
    batches: list[range] = field(init=False)
    supervised: list[int] = field(init=False)
    """Supervised tokens of each global batch."""
    began: float = field(default_factory=time.monotonic)
    """When this attempt began, on the monotonic clock."""
    progress: Progress = field(default_factory=Progress)
    curve: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batches = global_batches(self.rows, self.parameters.global_batch.rows, self.parameters.global_batch.tokens)
        counts = self.rows.supervised()
        self.supervised = [int(counts[batch.start : batch.stop].sum()) for batch in self.batches]
        self.progress.micro_rows, self.progress.steps = self.parameters.micro_batch, len(self.batches)
        self.divergence = Divergence(self.rows.mismatched) if self.rows.mismatched else None

    def resume(self, checkpoint: Checkpoint) -> None:
        """Resume from CHECKPOINT, whose weights the model already has."""
        if checkpoint.states:
            self.processes.load(checkpoint.states)
        self.progress = replace(checkpoint.progress, steps=len(self.batches))
        self.began -= self.progress.seconds
        if self.parameters.micro_batch is not None:
            self.progress.micro_rows = self.parameters.micro_batch
        self.curve = [
            self._point(number, loss, rate, norm, measures) for number, (loss, rate, norm, *measures) in enumerate(self.progress.curve, 1)
        ]

    def run(self) -> None:
        """Run the remaining steps; raises UserError if the training fails, Preempted if it was asked to stop."""
        due = Due(self.parameters.checkpoints, self.progress.step)
        with self.stop.listening(), self.watcher.watching(self.progress.step):
            if self.progress.step == len(self.batches):
                self._validate_if_due(self.progress.step)  # it was stopped between its last step and the validation
            while self.progress.step < len(self.batches) and not self.validator.exhausted(self.progress.validations):
                self._advance(due)

    def _advance(self, due: Due) -> None:
        """One step, with validation, checkpoint and checks."""
        step = self.progress.step
        rate = self.parameters.learning_rate * factor(self.parameters.schedule, step, len(self.batches))
        loss, *measured = self._gradient(step)
        norm = self.processes.step(rate)
        # The first process's clock decides when to stop or save: all must do so at the same step.
        first = self.processes.share.index == 0
        wishes = [float(bool(self.stop)), float(first and due.now(step + 1))]
        loss, stop, save, *measured = self.processes.sums([loss, *wishes, *measured])
        self._note(self._point(step + 1, loss, rate, norm, measured))
        if step + 1 == len(self.batches) and self.validator.tasks:
            # What fails or is killed while it validates need not train again.
            self.save()
        self._validate_if_due(step + 1)
        if stop or (save and step + 1 < len(self.batches)):
            self.save()
            due.saved(step + 1)
        if stop:
            raise Preempted(f"step {step + 1} of {len(self.batches)} is saved; the same command resumes from it")

    def _point(self, step: int, loss: float, rate: float, norm: float, measured: Sequence[float]) -> Point:
        part = self.distillation or self.preference
        return Point(step, loss, rate, norm, tuple(measured), part.measures if part else ())

    def _note(self, point: Point) -> None:
        self.curve.append(point)
        remedy = self.preference.objective.remedy if self.preference else ""
        refuse_bad_course(self.curve, self.parameters.stop_on_divergence, self.parameters.stop_without_progress, remedy)
        self.progress.curve.append([point.loss, point.learning_rate, point.grad_norm, *point.measures])
        self.progress.step, self.progress.position = point.step, self.batches[point.step - 1].stop
        self.watcher.add(point)

    def _validate_if_due(self, step: int) -> None:
        done = self.progress.validations and self.progress.validations[-1].step == step
        if done or not self.validator.due(step, len(self.batches)):
            return
        validated = self.validator.ask(step, self.progress.micro_rows)
        self.progress.validations.append(validated)
        self.watcher.validated(step, validated.loss)
        if self.validator.keeps_best and validated.loss == min(earlier.loss for earlier in self.progress.validations):
            weights = self.processes.weights()
            if self.processes.share.index == 0:
                self.checkpoints.keep_best(weights)

    def save(self) -> None:
        """Write a checkpoint; collective over all processes."""
        weights, states = self.processes.weights(), self.processes.states()
        if self.processes.share.index == 0:
            self.progress.seconds = round(time.monotonic() - self.began, 3)
            self.checkpoints.save(self.progress, weights, states)

    def _gradient(self, step: int) -> list[float]:
        """Compute the gradient of a global batch, halving the micro-batch if memory is short.

        Returns this process's part of the loss, and of what the objective measures.
        """
        while True:
            try:
                return self._micro_batches(step)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self.progress.micro_rows = smaller(self.parameters, self.progress.micro_rows, self._share_rows(step))
                if self.processes.share.count > 1:
                    # The others are blocked in a collective operation: all restart from the last checkpoint.
                    raise OutOfMemory(self.progress.micro_rows) from error
            # Outside of the handler: the traceback's frames hold the tensors that filled the memory.
            self.processes.clear()
            release()

    def _share_rows(self, step: int) -> int:
        return self.maker.largest(self.batches[step], self.processes.share)

    def _micro_batches(self, step: int) -> list[float]:
        totals = self._totals(step)
        # Random draws, such as noise on embeddings, are the same after a restart.
        torch.manual_seed((self.parameters.seed * 1_000_003 + step) % 2**63)
        self.processes.model.train()
        parts = self.maker.micro_batches(self.batches[step], self.processes.share, Bound(self.progress.micro_rows))
        # Losses are summed on the device, so that it need not wait between micro-batches.
        total: torch.Tensor = sum(self._part(part, step, totals, number == len(parts)) for number, part in enumerate(parts, 1))
        return [float(value) for value in total.tolist()]

    def _totals(self, step: int) -> Totals | None:
        """What the micro-batches of a global batch share, if the objective is on pairs of answers."""
        if self.preference is None:
            return None
        kl, batch = 0.0, self.batches[step]
        if self.divergence:
            precision = partial(autocast, self.parameters, next(self.processes.model.parameters()).device.type)
            kl = self.divergence.estimate(self.processes, batch, self.progress.micro_rows, precision)
        return self.preference.totals(batch, kl)

    def _part(self, positions: Sequence[int], step: int, totals: Totals | None, last: bool) -> torch.Tensor:
        """Accumulate the gradient of a micro-batch; returns its part of the loss, followed by those of the objective's measures."""
        batch = self.maker.tensors(positions).to(next(self.processes.model.parameters()).device)
        self.keys.of_batch(batch.positions, batch.offsets, self.maker.layout.flat)
        with autocast(self.parameters, batch.labels.device.type):
            logits, targets = predictions(self.processes.model, batch.inputs, batch.labels, self.processes.forward)
        measured = torch.empty(0, device=batch.labels.device)
        if self.distillation is not None:
            loss, measured = self.distillation.part(logits, targets, positions, self.supervised[step])
        elif self.preference is None or totals is None:
            loss = token_loss(logits, targets, self.supervised[step])
        else:
            loss, measured = self.preference.part(logits, targets, positions, totals)
        # Free the logits, often the largest tensor, to make room for their gradient.
        del logits
        self.processes.backward(loss, last)
        return torch.cat([loss.detach()[None], measured])


class OutOfMemory(Exception):
    """A process has too little memory for its micro-batch; `rows` may fit."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"out of memory; {rows} rows may fit")
        self.rows = rows


def smaller(parameters: Parameters, rows: int | None, share: int) -> int:
    """Half of the micro-batch; raises UserError if it cannot be halved or was set explicitly."""
    tried = min(rows or share, share)
    if parameters.micro_batch is not None:
        raise UserError(f"out of memory with a micro-batch of {tried} rows", hint='set resources.micro_batch to fewer rows, or to "auto"')
    if tried == 1:
        hint = "decrease tokenization.max_length, partition the weights (resources.zero = 3), or use a smaller model or a larger device"
        raise UserError("out of memory even with a micro-batch of one row", hint=hint)
    return tried // 2
