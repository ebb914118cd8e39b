"""What ends a training early: numbers that are none, divergence, no progress, and a signal that asks it to stop."""

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from engine.errors import UserError
from stages.train.record import Point

WINDOW = 20
"""Losses are compared as means over so many steps."""
_RISE = 1.5
_LOWER = "lower training.learning_rate, raise schedule.warmup_ratio, or lower max_grad_norm"
_KEPT = "the last good checkpoint is kept, and the same command would go on from there"


def refuse_bad_course(curve: Sequence[Point], stop_on_divergence: bool) -> None:
    """Raise UserError where the last step of CURVE shows that going on is of no use."""
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
