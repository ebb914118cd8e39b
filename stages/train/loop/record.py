"""The progress line and the loss curve of a training."""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.process.progress import Progress, progress

POINTS = 200
"""Approximate maximum number of points of the loss curve."""


@dataclass(frozen=True)
class Point:
    """One optimizer step: number (from 1), loss (nats per supervised token), learning rate, and norm of the gradient before clipping."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float


@dataclass(frozen=True)
class Pace:
    """Speed of a training since it was started or resumed."""

    tokens_per_second: float
    supervised_tokens_per_second: float
    seconds_left: float


class Clock:
    """Measures the speed of a training from step START on; padding does not count."""

    def __init__(self, tokens: Sequence[int], supervised: Sequence[int], start: int) -> None:
        self._tokens, self._supervised, self._start = tokens, supervised, start
        self._started = time.monotonic()

    def pace(self, step: int) -> Pace:
        """The pace after STEP steps."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        tokens, supervised = (sum(counts[self._start : step]) / seconds for counts in (self._tokens, self._supervised))
        return Pace(tokens, supervised, seconds / max(1, step - self._start) * (len(self._tokens) - step))


class ProgressLine:
    """The progress line of a training on stderr."""

    def __init__(self, steps: int, done: int) -> None:
        self._progress: Progress[None] = progress(steps, "train", "steps")
        self._progress.skip(done)

    def add(self, point: Point, pace: Pace) -> None:
        """Report one more step."""
        rates = f"learning rate {point.learning_rate:.2e}, {pace.tokens_per_second:.0f} tokens/s"
        self._progress.update(1, f"loss {point.loss:.4f}, {rates}, {_duration(pace.seconds_left)} left")

    def close(self) -> None:
        """Print the final state."""
        self._progress.close()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def final_loss(curve: Sequence[Point]) -> float:
    """Mean loss of the last tenth of the steps (at least one)."""
    last = curve[-max(1, len(curve) // 10) :]
    return sum(point.loss for point in last) / len(last)


def write_curve(curve: Sequence[Point], path: Path) -> None:
    """Write about 200 evenly spaced points of CURVE as CSV, including the first and the last step."""
    stride = (len(curve) - 1) / (POINTS - 1)
    kept = curve if len(curve) <= POINTS else [curve[round(stride * number)] for number in range(POINTS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss", "learning_rate", "grad_norm"])
        writer.writerows([point.step, *(f"{value:.6g}" for value in (point.loss, point.learning_rate, point.grad_norm))] for point in kept)
