"""What is told about a training while it runs and afterwards: progress, the loss curve, and the check that the loss is a number."""

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from engine.errors import UserError
from stages.common.progress import Progress, progress

POINTS = 200
"""At most about so many points are kept of the loss curve."""


@dataclass(frozen=True)
class Point:
    """One optimizer step: its number from 1, loss per supervised token, learning rate, and norm of the gradient before clipping."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float


class Record(TrainerCallback):
    """Keeps each step's numbers, reports them, and stops a training whose loss or gradient is no finite number."""

    def __init__(self, step_tokens: list[int]) -> None:
        self.curve: list[Point] = []
        self._step_tokens, self._tokens = step_tokens, 0
        self._progress: Progress[None] = progress(len(step_tokens), "train", "steps")
        self._started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **others: Any) -> None:
        """Called by the trainer after each step, and once at the end with a summary, which is not ours."""
        if logs is None or "loss" not in logs:
            return
        point = Point(state.global_step, logs["loss"], logs["learning_rate"], logs["grad_norm"])
        _refuse_nan(point)
        self.curve.append(point)
        self._tokens += self._step_tokens[point.step - 1]
        self._progress.update(1, self._note(point))

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Leave the last state on the screen."""
        self._progress.close()

    def _note(self, point: Point) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        left = seconds / point.step * (len(self._step_tokens) - point.step)
        return f"loss {point.loss:.4f}, learning rate {point.learning_rate:.2e}, {self._tokens / seconds:.0f} tokens/s, {left:.0f} s left"


def _refuse_nan(point: Point) -> None:
    for name, value in (("loss", point.loss), ("norm of the gradient", point.grad_norm)):
        if not math.isfinite(value):
            hint = "lower training.learning_rate, raise schedule.warmup_ratio, or lower max_grad_norm"
            raise UserError(f"the {name} is {value} at step {point.step}: the training has diverged", hint=hint)


def final_loss(curve: list[Point]) -> float:
    """Mean loss of the last tenth of the steps (of one at least)."""
    last = curve[-max(1, len(curve) // 10) :]
    return sum(point.loss for point in last) / len(last)


def write_curve(curve: list[Point], path: Path) -> None:
    """Write at most about 200 points of CURVE as CSV, evenly spread, the first and the last step among them."""
    stride = (len(curve) - 1) / (POINTS - 1)
    kept = curve if len(curve) <= POINTS else [curve[round(stride * number)] for number in range(POINTS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss", "learning_rate", "grad_norm"])
        writer.writerows([point.step, *(f"{value:.6g}" for value in (point.loss, point.learning_rate, point.grad_norm))] for point in kept)
