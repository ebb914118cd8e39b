"""Progress of a running training, reported by the first process: the line on stderr, and the live metrics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.train.logging.loggers import Live, utilization
from stages.train.loop.record import Clock, Point, ProgressLine
from stages.train.memory.peak import peak_memory

DECIDES_NO_BYTES = True
"""Not part of a step's identity: processes and their supervision do not affect results."""


@dataclass
class Watcher:
    """Reports each step, on the first process only."""

    tokens: Sequence[int]
    """Tokens of each global batch, without padding."""
    supervised: Sequence[int]
    parameters: int
    """Number of weights of the whole model."""
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
        }
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        if (share := utilization(pace.tokens_per_second, self.parameters, self.devices, name)) is not None:
            values["model_flops_utilization"] = share
        self._live.log(point.step, values, last=point.step == len(self.tokens))

    def validated(self, step: int, loss: float) -> None:
        """Report a validation loss (nats per supervised token)."""
        if self._live is not None:
            self._live.log(step, {"validation_loss": loss}, last=True)
