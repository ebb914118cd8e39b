"""Live metrics of a running training: DVCLive's files, and optionally TensorBoard, W&B and MLflow.

They contain times and speeds, so they are not part of the step's output. Services are told by processes of their own (see loggers).
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from engine.core.errors import UserError, visible
from stages.process.starting import ours
from stages.train.logging.services import flat

DECIDES_NO_BYTES = True
"""Not part of a step's identity: processes and their supervision do not affect results."""

_SECONDS_BETWEEN = 1.0
"""Minimum seconds between two logs, since steps may take milliseconds."""

_CLOSING_SECONDS = 30.0
"""Seconds for a logger to send its remaining data."""

_MOST_UNSENT = 1 << 20
"""Maximum bytes buffered for a blocked logger."""

_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12}
"""Peak dense bfloat16 FLOP/s from data sheets, by substring of the device's name; longer names first."""

_PIP = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}


class Sink(Protocol):
    """A destination of live metrics."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the VALUES of STEP."""

    def close(self, whole: bool) -> None:
        """Finish the log; WHOLE: the training has finished."""


class DvcLive:
    """DVCLive's files in a folder, one per metric: `dvc plots show live` draws them."""

    def __init__(self, folder: Path) -> None:
        from dvclive import Live

        class FilesOnly(Live):
            """DVCLive without an experiment, which would fail in a repository without commits; our steps already run under DVC."""

            def _init_dvc(self) -> None:
                """Skip git and DVC."""

        if folder.exists():
            shutil.rmtree(folder)
        self._live = FilesOnly(str(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the VALUES of STEP."""
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, value)
        self._live.make_summary()

    def close(self, whole: bool) -> None:
        """Finish the log."""
        self._live.end()


class Apart:
    """A logger in a separate process, which can neither stop nor delay a training.

    Messages are buffered in a pipe; if it is full because the logger is blocked, values are dropped.
    """

    def __init__(self, name: str, folder: Path, step: str) -> None:
        self._name = name
        command = ours("stages.train.logging.services", name, str(folder), step)
        # It needs no device, and its threads must not occupy cores.
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._process.stdin
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self._unsent = b""

    def tell(self, **told: Any) -> None:
        """Send one message."""
        line = json.dumps(told).encode() + b"\n"
        if not self._send() and len(self._unsent) + len(line) > _MOST_UNSENT:
            return
        self._unsent += line
        self._send()

    def _send(self) -> bool:
        """Write the buffer to the pipe; returns whether it is empty."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._pipe, self._unsent) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self._unsent = b""  # the process has reported why it ended
        return True

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the VALUES of STEP."""
        # JSON supports only finite numbers; the training's guards handle others.
        self.tell(step=step, values={name: value for name, value in values.items() if math.isfinite(value)})

    def close(self, whole: bool) -> None:
        """Wait for the process to exit, for a limited time."""
        self.tell(close="finished" if whole else "failed")
        deadline = time.monotonic() + _CLOSING_SECONDS
        while not self._send() and self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self._process.stdin
        self._process.stdin.close()
        try:
            status = self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._warn(f"has not ended after {_CLOSING_SECONDS:.0f} s, and was stopped; numbers may be missing there")
            return
        if status < 0:
            self._warn(f"ended by signal {-status}; numbers are missing there")

    def _warn(self, what: str) -> None:
        hint = "see whether its server can be reached, or leave it out of resources.report_to; the result is as it would be without it"
        print(visible(f"warning: {self._name} {what}\n  hint: {hint}"), file=sys.stderr)


def refuse_missing(report_to: Sequence[str]) -> None:
    """Raise UserError if a package in REPORT_TO is not installed."""
    for name in report_to:
        # Not imported here, only in the logger's process.
        if find_spec(name) is None:
            hint = f"run: pip install {_PIP[name]}   (or remove it from resources.report_to)"
            raise UserError(f"resources.report_to lists {name}, which is not installed", hint=hint)


class Live:
    """Logs to all sinks, about once per second; does nothing without a folder. Failing sinks do not stop a training."""

    def __init__(self, folder: Path | None, name: str, report_to: Sequence[str]) -> None:
        self._said: float | None = None
        self._sinks: list[Sink] = []
        if folder is not None:
            self._guarded(lambda: self._sinks.append(DvcLive(folder)), "start")
            recipe = dict(flat(recipe_of(folder, name)))
            for sink in report_to:
                self._guarded(partial(self._start, sink, folder, name, recipe), "start")

    def _start(self, sink: str, folder: Path, name: str, recipe: dict[str, Any]) -> None:
        apart = Apart(sink, folder, name)
        self._sinks.append(apart)
        apart.tell(parameters=recipe)

    def log(self, step: int, values: dict[str, float], last: bool) -> None:
        """Log the VALUES of STEP; the first and the LAST are always logged."""
        now = time.monotonic()
        if self._said is None or last or now - self._said >= _SECONDS_BETWEEN:
            self._said = now
            for sink in tuple(self._sinks):
                if not self._guarded(partial(sink.log, step, values), "take a number"):
                    self._sinks.remove(sink)

    def close(self, whole: bool = True) -> None:
        """Finish the log; WHOLE: the training has finished."""
        for sink in self._sinks:
            self._guarded(partial(sink.close, whole), "end")

    @staticmethod
    def _guarded(act: Callable[[], object], doing: str) -> bool:
        """Run ACT; returns whether it succeeded, and reports its exception as a warning."""
        try:
            act()
        except Exception as error:
            said = " ".join(str(error).split())
            hint = "make room on the disk, or leave loggers out of resources.report_to; the result is as it would be without"
            told = f"warning: live metrics could not {doing}: {type(error).__name__}: {said}\n  hint: {hint}"
            print(visible(told), file=sys.stderr)
            return False
        return True


def recipe_of(folder: Path, step: str) -> dict[str, Any]:
    """The recipe of STEP from its identity file; empty if there is none."""
    try:
        found: dict[str, Any] = json.loads((folder.parents[1] / "identity" / f"{step}.json").read_text("utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, IndexError):
        return {}
    return found


def peak_flops(device: str) -> float | None:
    """Peak FLOP/s of the device with that name; None if unknown."""
    return next((_PEAK_FLOPS[part] for part in _PEAK_FLOPS if part in device), None)


def utilization(tokens_per_second: float, parameters: int, trainable: int, devices: int, device: str) -> float | None:
    """Model FLOPs utilization (Chowdhery et al., 2022, PaLM, appendix B) of a model of which TRAINABLE of PARAMETERS weights are trained.

    A token costs 2 FLOPs for each weight in the forward pass, 2 for the gradient of its input, and 2 more for its own gradient only if it
    is trained; recomputed activations do not count. None if the peak of DEVICE is unknown.
    """
    peak = peak_flops(device)
    return None if peak is None else (4 * parameters + 2 * trainable) * tokens_per_second / (peak * devices)
