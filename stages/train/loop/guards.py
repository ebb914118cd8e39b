"""What ends a training early: numbers that are none, divergence, no progress, and a signal that asks it to stop."""

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, variance
from types import FrameType

from engine.core.errors import UserError
from stages.train.loop.record import Point

WINDOW = 20
"""Losses are compared as means over so many steps."""
_RISE = 1.5
_FALL = 0.005
"""A mean loss that has fallen by less than this share of itself, and that for certain, has not fallen."""
_LOWER = "lower training.learning_rate, raise schedule.warmup_ratio, or lower max_grad_norm"
_NO_PROGRESS = (
    "raise training.learning_rate, train more of the model (r, target_modules), or look at what is learnt from (engine inspect); "
    "resources.stop_without_progress = 0 lets it go on"
)
_KEPT = "the last good checkpoint is kept, and the same command would go on from there"


def refuse_bad_course(curve: Sequence[Point], stop_on_divergence: bool, patience: int = 0) -> None:
    """Raise UserError where the last step of CURVE shows that going on is of no use; PATIENCE: steps without progress, 0 any number."""
    point = curve[-1]
    for name, value in (("loss", point.loss), ("norm of the gradient", point.grad_norm)):
        if not math.isfinite(value):
            raise UserError(f"the {name} is {value} at step {point.step}: the training has diverged ({_KEPT})", hint=_LOWER)
    if len(curve) >= WINDOW and not any(earlier.grad_norm for earlier in curve[-WINDOW:]):
        what = f"the gradient has been zero for {WINDOW} steps, up to step {point.step}: nothing is learnt ({_KEPT})"
        raise UserError(what, hint="do the trained weights reach the loss? look at training.method and its target_modules")
    if stop_on_divergence and len(curve) >= 2 * WINDOW and (risen := _risen(curve)):
        first, last = risen
        what = f"the loss has risen from {first:.4g} to {last:.4g} by step {point.step}: the training diverges ({_KEPT})"
        raise UserError(what, hint=f"{_LOWER}; resources.stop_on_divergence = false lets it go on")
    if patience and (flat := _flat(curve, patience)):
        what = f"the loss has been flat since the beginning: {flat[0]:.4g} at first, {flat[1]:.4g} by step {point.step} ({_KEPT})"
        raise UserError(what, hint=_NO_PROGRESS)


def _flat(curve: Sequence[Point], patience: int) -> tuple[float, float] | None:
    """The mean loss of the first steps and of the last ones where nothing was learnt in PATIENCE steps, counted from the warm-up's end.

    A training that has learnt something before is left alone: a loss that stays at its floor is what a good training ends with.
    """
    if len(curve) < 4 or len(curve) % patience:
        return None
    warm = max(range(len(curve)), key=lambda step: curve[step].learning_rate)  # the first of the steps at the peak
    if len(curve) - warm < patience:
        return None
    half = max(2, patience // 2)
    first, last = ([point.loss for point in part] for part in (curve[:half], curve[-half:]))
    before, now = fmean(first), fmean(last)
    doubt = 2 * math.sqrt((variance(first) + variance(last)) / half)  # of the difference of both means, from step to step
    return (before, now) if before - now + doubt < _FALL * before else None


def _risen(curve: Sequence[Point]) -> tuple[float, float] | None:
    """The mean loss of the first steps and of the last ones where these are far above."""
    first, last = (sum(point.loss for point in part) / WINDOW for part in (curve[:WINDOW], curve[-WINDOW:]))
    return (first, last) if last > _RISE * first else None


class StopRequest:
    """Whether somebody asked the training to stop: SIGTERM, ^C, or a file that the step's own process leaves."""

    def __init__(self, file: Path | None = None) -> None:
        self._signalled, self._file = False, file

    def __bool__(self) -> bool:
        return self._signalled or (self._file is not None and self._file.exists())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt  # asked twice: at once
        self._signalled = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this lasts, a signal lets the present step finish and its checkpoint be written."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
