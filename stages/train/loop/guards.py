"""Reasons to stop a training early: NaN or infinite values, divergence, unlearnt answers, no progress, and signals."""

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, variance
from types import FrameType

from engine.core.errors import UserError
from stages.train.loop.record import Point

WINDOW = 20
"""Steps over which losses are averaged for comparison."""
_RISE = 1.5
_FALL = 0.005
"""Minimum relative decrease of the mean loss that counts as progress."""
_UNLEARNT = 2.0
"""Fall of the mean log-probability of chosen answers, in nats per token, from which on they are being unlearnt."""
_LOWER = "decrease training.learning_rate, increase schedule.warmup_ratio, or decrease max_grad_norm"
_NO_PROGRESS = (
    "increase training.learning_rate, train more of the model (r, target_modules), or check the training rows (engine inspect); "
    "resources.stop_without_progress = 0 disables this check"
)
_KEPT = "the last good checkpoint is kept; the same command would resume from it"


def refuse_bad_course(curve: Sequence[Point], stop_on_divergence: bool, patience: int = 0, remedy: str = "") -> None:
    """Raise UserError if the last step of CURVE shows that the training fails.

    PATIENCE: steps without progress, 0 for unlimited; REMEDY: what the objective can do if the chosen answers are unlearnt.
    """
    point = curve[-1]
    for name, value in (("loss", point.loss), ("norm of the gradient", point.grad_norm)):
        if not math.isfinite(value):
            raise UserError(f"the {name} is {value} at step {point.step}: the training has diverged ({_KEPT})", hint=_LOWER)
    if len(curve) >= WINDOW and not any(earlier.grad_norm for earlier in curve[-WINDOW:]):
        what = f"the gradient has been zero for {WINDOW} steps, up to step {point.step}: the model does not learn ({_KEPT})"
        raise UserError(what, hint="check that the trained weights affect the loss: training.method and its target_modules")
    if stop_on_divergence and len(curve) >= 2 * WINDOW and (risen := _risen(curve)):
        first, last = risen
        what = f"the loss has risen from {first:.4g} to {last:.4g} by step {point.step}: the training diverges ({_KEPT})"
        raise UserError(what, hint=f"{_LOWER}; resources.stop_on_divergence = false disables this check")
    if stop_on_divergence and len(curve) >= 2 * WINDOW and (unlearnt := _unlearnt(curve)):
        first, last = unlearnt
        what = f"the chosen answers have become far less likely: from {first:.4g} to {last:.4g} nats per token by step {point.step}"
        hint = ", ".join([*([remedy] if remedy else []), "decrease training.learning_rate, or train for fewer steps"])
        raise UserError(f"{what} ({_KEPT})", hint=f"{hint}; resources.stop_on_divergence = false disables this check")
    if patience and (flat := _flat(curve, patience)):
        what = f"the loss has not decreased: {flat[0]:.4g} at first, {flat[1]:.4g} by step {point.step} ({_KEPT})"
        raise UserError(what, hint=_NO_PROGRESS)


def _flat(curve: Sequence[Point], patience: int) -> tuple[float, float] | None:
    """Mean loss of the first and of the last steps if there was no progress in PATIENCE steps after the warm-up; else None.

    A training with earlier progress is not stopped: a good training ends with a flat loss.
    """
    if len(curve) < 4 or len(curve) % patience:
        return None
    warm = max(range(len(curve)), key=lambda step: curve[step].learning_rate)  # the first of the steps at the peak
    if len(curve) - warm < patience:
        return None
    half = max(2, patience // 2)
    first, last = ([point.loss for point in part] for part in (curve[:half], curve[-half:]))
    before, now = fmean(first), fmean(last)
    doubt = 2 * math.sqrt((variance(first) + variance(last)) / half)  # standard error of the difference of both means
    return (before, now) if before - now + doubt < _FALL * before else None


def _risen(curve: Sequence[Point]) -> tuple[float, float] | None:
    """Mean loss of the first and of the last steps if the latter is far higher; else None."""
    first, last = (sum(point.loss for point in part) / WINDOW for part in (curve[:WINDOW], curve[-WINDOW:]))
    return (first, last) if last > _RISE * first else None


def _unlearnt(curve: Sequence[Point]) -> tuple[float, float] | None:
    """Mean log-probability per token of the chosen answers in the first and the last steps if it has fallen far; else None.

    Losses on pairs compare answers only: they may fall while both answers become ever less likely, and the model writes neither. Steps on
    judged answers may have no desirable one, and means over few say more of these answers than of the training: then None.
    """
    if "chosen_logp" not in curve[-1].measured():
        return None
    windows = [[found for point in points if (found := point.measured())["chosen_tokens"]] for points in (curve[:WINDOW], curve[-WINDOW:])]
    if min(map(len, windows)) < WINDOW // 2:
        return None
    first, last = (sum(point["chosen_logp"] for point in part) / sum(point["chosen_tokens"] for point in part) for part in windows)
    return (first, last) if first - last > _UNLEARNT else None


_ONE_REQUEST = 2.0
"""Seconds within which several signals are one request: a terminal or a scheduler signals all processes, and the parent hands it on."""


class StopRequest:
    """Whether the training was asked to stop: by SIGTERM, ^C, or a file that the step's process writes."""

    def __init__(self, file: Path | None = None) -> None:
        self._signalled: float | None = None
        self._file = file

    def __bool__(self) -> bool:
        return self._signalled is not None or (self._file is not None and self._file.exists())

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled is None:
            self._signalled = now
        elif now - self._signalled > _ONE_REQUEST:
            raise KeyboardInterrupt  # the second request stops at once

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Context in which a signal lets the current step finish and its checkpoint be written."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
