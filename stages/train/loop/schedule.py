"""The learning rate schedule as a pure function."""

import math

from stages.train import Schedule


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """Learning rate of optimizer step STEP (from 0) of STEPS, as a share of the peak.

    The warm-up rises from zero before the first step; the decay reaches the floor after the last step. So no step has a learning rate of
    zero, unlike the first step in transformers' schedules.
    """
    warmup = math.ceil(schedule.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return schedule.floor + (1 - schedule.floor) * _left(schedule, step, warmup, steps)


def _left(schedule: Schedule, step: int, warmup: int, steps: int) -> float:
    """The schedule at STEP after WARMUP steps, from 1 down to 0, before the floor is applied."""
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    match schedule.kind:
        case "constant":
            return 1.0
        case "linear":
            return 1 - progress
        case "inverse_sqrt":
            # Vaswani et al., 2017, arXiv:1706.03762, section 5.3; independent of the number of steps.
            return math.sqrt((warmup + 1) / (step + 1))
        case "wsd":
            # Hu et al., 2024, arXiv:2404.06395, section 4: warm-up, stable, decay.
            decay = max(1, math.ceil(schedule.decay_ratio * steps))
            return min(1.0, (steps - step) / decay)
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
