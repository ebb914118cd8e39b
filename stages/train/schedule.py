"""How the learning rate moves over the steps, as a pure function."""

import math

from stages.train import Schedule


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """Share of the peak learning rate that the optimizer step STEP (from 0) of STEPS uses.

    The warm-up rises from zero before the first step to the peak; the decay reaches the floor after the last step. So no step is spent
    on a rate of zero, unlike in transformers' schedules, whose first step learns nothing.
    """
    warmup = math.ceil(schedule.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    return schedule.floor + (1 - schedule.floor) * _left(schedule.kind, min(1.0, progress))


def _left(kind: str, progress: float) -> float:
    """What is left of the rate at PROGRESS, 0 to 1, of the decay."""
    if kind == "constant":
        return 1.0
    return 1 - progress if kind == "linear" else (1 + math.cos(math.pi * progress)) / 2
