"""Numbers of a running training for people: DVCLive's files, and where asked TensorBoard, W&B and MLflow.

They hold times and speeds, and therefore lie outside of what the step leaves. Services are told by processes of their own (see loggers).
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

from engine.core.errors import UserError
from stages.process.starting import ours
from stages.train.logging.services import flat

DECIDES_NO_BYTES = True
"""Which processes a training runs in, and who watches them, is no part of its identity."""

_SECONDS_BETWEEN = 1.0
"""A step may take a millisecond; nobody watches that often."""

_CLOSING_SECONDS = 30.0
"""So long a logger may take to send what it still holds."""

_MOST_UNSENT = 1 << 20
"""Bytes that wait for a logger which takes nothing."""

_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12}
"""Dense bfloat16 operations per second, from the makers' data sheets, by a part of the device's name; longer names first."""

_PIP = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}


class Sink(Protocol):
    """Takes the numbers of a step."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the VALUES of STEP."""

    def close(self, whole: bool) -> None:
        """Nothing follows; WHOLE: the training has come to its end."""


class DvcLive:
    """Files below a folder, one for each number: `dvc plots show live` draws them."""

    def __init__(self, folder: Path) -> None:
        from dvclive import Live

        class FilesOnly(Live):
            """DVCLive without an experiment: in a repository without a commit it would fail, and our steps are DVC's own."""

            def _init_dvc(self) -> None:
                """Know nothing of git and DVC."""

        if folder.exists():
            shutil.rmtree(folder)
        self._live = FilesOnly(str(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the VALUES of STEP."""
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, value)
        self._live.make_summary()

    def close(self, whole: bool) -> None:
        """Nothing follows."""
        self._live.end()


class Apart:
    """A logger in a process of its own, which neither stops a training nor holds it up.

    What it is told waits in a pipe; where that is full, as the logger takes nothing any more, numbers are left out.
    """

    def __init__(self, name: str, folder: Path, step: str) -> None:
        self._name = name
        command = ours("stages.train.logging.services", name, str(folder), step)
        # No device is its business, and its threads are not to take cores.
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._process.stdin
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self._unsent = b""

    def tell(self, **told: Any) -> None:
        """Hand on one line."""
        line = json.dumps(told).encode() + b"\n"
        if not self._send() and len(self._unsent) + len(line) > _MOST_UNSENT:
            return
        self._unsent += line
        self._send()

    def _send(self) -> bool:
        """Whether all that waits has gone into the pipe."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._pipe, self._unsent) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self._unsent = b""  # it has said why it ended
        return True

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the VALUES of STEP."""
        # JSON knows no others; a training that makes them is stopped by its own guard.
        self.tell(step=step, values={name: value for name, value in values.items() if math.isfinite(value)})

    def close(self, whole: bool) -> None:
        """Wait for its end, but not for long."""
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
        print(f"warning: {self._name} {what}\n  hint: {hint}", file=sys.stderr)


def refuse_missing(report_to: Sequence[str]) -> None:
    """Raise UserError where a package that live metrics are to go to is not installed."""
    for name in report_to:
        # Not imported: that is for its own process.
        if find_spec(name) is None:
            hint = f"run: pip install {_PIP[name]}   (or leave it out of resources.report_to)"
            raise UserError(f"resources.report_to names {name}, which is not installed", hint=hint)


class Live:
    """Hands a step's numbers to all sinks, about once a second; does nothing without a folder. No sink ends a training."""

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
        """Take the VALUES of STEP; the first and the LAST are never left out."""
        now = time.monotonic()
        if self._said is None or last or now - self._said >= _SECONDS_BETWEEN:
            self._said = now
            for sink in tuple(self._sinks):
                if not self._guarded(partial(sink.log, step, values), "take a number"):
                    self._sinks.remove(sink)

    def close(self, whole: bool = True) -> None:
        """Nothing follows; WHOLE: the training has come to its end."""
        for sink in self._sinks:
            self._guarded(partial(sink.close, whole), "end")

    @staticmethod
    def _guarded(act: Callable[[], object], doing: str) -> bool:
        """Whether ACT, which watches and decides nothing, has worked; what it raises is told."""
        try:
            act()
        except Exception as error:
            said = " ".join(str(error).split())
            hint = "make room on the disk, or leave loggers out of resources.report_to; the result is as it would be without"
            print(f"warning: live metrics could not {doing}: {type(error).__name__}: {said}\n  hint: {hint}", file=sys.stderr)
            return False
        return True


def recipe_of(folder: Path, step: str) -> dict[str, Any]:
    """The recipe of STEP, as its identity file beside the live folder says it; empty where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder.parents[1] / "identity" / f"{step}.json").read_text("utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, IndexError):
        return {}
    return found


def peak_flops(device: str) -> float | None:
    """Operations per second of the device with that name, None where it is not known."""
    return next((_PEAK_FLOPS[part] for part in _PEAK_FLOPS if part in device), None)


def utilization(tokens_per_second: float, parameters: int, devices: int, device: str) -> float | None:
    """Share of the devices' operations that the model itself takes: 6 per weight and token (Chowdhery et al., 2022, PaLM, appendix B)."""
    peak = peak_flops(device)
    return None if peak is None else 6 * parameters * tokens_per_second / (peak * devices)
