"""Progress of a running training, reported by the first process: the line on stderr, and the live metrics."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.process.progress import Progress, progress
from stages.train.logging.loggers import Live, utilization
from stages.train.loop.record import Point
from stages.train.memory.peak import peak_memory

DECIDES_NO_BYTES = True
"""Not part of a step's identity: processes and their supervision do not affect results."""


@dataclass(frozen=True)
class Pace:
    """Speed of a training since it was started or resumed."""

    tokens_per_second: float
    supervised_tokens_per_second: float


class Clock:
    """Measures the speed of a training from step START on; padding does not count."""

    def __init__(self, tokens: Sequence[int], supervised: Sequence[int], start: int) -> None:
        self._tokens, self._supervised, self._start = tokens, supervised, start
        self._started = time.monotonic()

    def pace(self, step: int) -> Pace:
        """The pace after STEP steps."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        tokens, supervised = (sum(counts[self._start : step]) / seconds for counts in (self._tokens, self._supervised))
        return Pace(tokens, supervised)


class ProgressLine:
    """The progress line of a training on stderr."""

    def __init__(self, steps: int, done: int) -> None:
        self._progress: Progress[None] = progress(steps, "train", "steps")
        self._progress.skip(done)

    def add(self, point: Point, pace: Pace) -> None:
        """Report one more step."""
        rates = f"learning rate {point.learning_rate:.2e}, {pace.tokens_per_second:.0f} tokens/s"
        self._progress.update(1, f"loss {point.loss:.4f}, {rates}")

    def close(self) -> None:
        """Print the final state."""
        self._progress.close()


@dataclass
class Watcher:
    """Reports each step, on the first process only."""

    tokens: Sequence[int]
    """Tokens of each global batch, without padding."""
    supervised: Sequence[int]
    parameters: int
    """Number of weights of the whole model."""
    trainable: int
    """Number of weights that are trained."""
    devices: int
    device: torch.device
    folder: Path | None
    name: str
    report_to: Sequence[str] = ()
    silent: bool = False
    _clock: Clock | None = None
    _line: ProgressLine | None = None
    _live: Live | None = None

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Context that reports a training with STEP finished steps."""
        if self.silent:
            yield
            return
        self._clock = Clock(self.tokens, self.supervised, step)
        self._line = ProgressLine(len(self.tokens), step)
        self._live = Live(self.folder, self.name, self.report_to)
        whole = False
        try:
            yield
            whole = True
        finally:
            self._line.close()
            self._live.close(whole)

    def add(self, point: Point) -> None:
        """Report one more step."""
        if self._clock is None or self._line is None or self._live is None:
            return
        pace = self._clock.pace(point.step)
        self._line.add(point, pace)
        values = {
            "loss": point.loss,
            "learning_rate": point.learning_rate,
            "grad_norm": point.grad_norm,
            "tokens_per_second": pace.tokens_per_second,
            "supervised_tokens_per_second": pace.supervised_tokens_per_second,
            "memory_bytes": float(peak_memory(self.device)),
            **point.measured(),
        }
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        if (share := utilization(pace.tokens_per_second, self.parameters, self.trainable, self.devices, name)) is not None:
            values["model_flops_utilization"] = share
        self._live.log(point.step, values, last=point.step == len(self.tokens))

    def validated(self, step: int, loss: float) -> None:
        """Report a validation loss (nats per supervised token)."""
        if self._live is not None:
            self._live.log(step, {"validation_loss": loss}, last=True)
