"""Decides when a checkpoint is due."""

import time

from stages.train import Checkpoints

DECIDES_NO_BYTES = True
"""Not part of a step's identity: when a training saves itself does not affect results."""


class Due:
    """Tracks whether a checkpoint is due, by steps and by minutes since the last one."""

    def __init__(self, checkpoints: Checkpoints, step: int) -> None:
        self._checkpoints = checkpoints
        self.saved(step)

    def saved(self, step: int) -> None:
        """Record that a checkpoint was written after STEP steps."""
        self._step, self._time = step, time.monotonic()

    def now(self, step: int) -> bool:
        """Whether a checkpoint is due after STEP steps."""
        every = self._checkpoints.every_steps
        enough = every is not None and step - self._step >= every
        return enough or time.monotonic() - self._time >= 60 * self._checkpoints.every_minutes
