"""The loss curve of a training."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MEASURES = (
    *("accuracy", "margin", "chosen_reward", "rejected_reward"),
    *("chosen_logp", "rejected_logp", "chosen_tokens", "rejected_tokens"),
)
"""What is measured of pairs, as means over them: the share whose chosen answer has the higher reward, the difference of both rewards, both
rewards, log-probabilities (nats) and lengths (tokens) of both answers."""
KL = "kl"
"""What an objective measures in addition if it estimates the divergence from the reference, in nats per answer."""

POINTS = 200
"""Approximate maximum number of points of the loss curve."""


@dataclass(frozen=True)
class Point:
    """One optimizer step: number (from 1), loss (nats per supervised token), learning rate, and norm of the gradient before clipping."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    measures: tuple[float, ...] = ()
    """What the objective measures; empty for supervised training."""
    names: tuple[str, ...] = (*MEASURES, KL)
    """The names of what is measured; an objective that does not estimate KL has no value of it."""

    def measured(self) -> dict[str, float]:
        """What the objective measures, by name; empty for supervised training."""
        return dict(zip(self.names, self.measures, strict=False))


def final_loss(curve: Sequence[Point]) -> float:
    """Mean loss of the last tenth of the steps (at least one)."""
    last = curve[-max(1, len(curve) // 10) :]
    return sum(point.loss for point in last) / len(last)


def write_curve(curve: Sequence[Point], path: Path, measures: Sequence[str] = ()) -> None:
    """Write about 200 evenly spaced points of CURVE as CSV, including the first and the last step; MEASURES are the names of theirs."""
    stride = (len(curve) - 1) / (POINTS - 1)
    kept = curve if len(curve) <= POINTS else [curve[round(stride * number)] for number in range(POINTS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss", "learning_rate", "grad_norm", *measures])
        writer.writerows(
            [point.step, *(f"{value:.6g}" for value in (point.loss, point.learning_rate, point.grad_norm, *point.measures))]
            for point in kept
        )
