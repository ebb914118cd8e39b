"""Live metrics of a running training: DVCLive's files, and optionally TensorBoard, W&B and MLflow.

They contain times and speeds, so they are not part of the step's output.
"""

import importlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.core.errors import UserError

DECIDES_NO_BYTES = True
"""Not part of a step's identity: processes and their supervision do not affect results."""

_SECONDS_BETWEEN = 1.0
"""Minimum seconds between two logs, since steps may take milliseconds."""

_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12}
"""Peak dense bfloat16 FLOP/s from data sheets, by substring of the device's name; longer names first."""

_PIP = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}


class Sink(Protocol):
    """A destination of live metrics."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the VALUES of STEP."""

    def close(self) -> None:
        """Finish the log."""


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

    def close(self) -> None:
        """Finish the log."""
        self._live.end()


class TensorBoard:
    """TensorBoard's event files, in the live folder."""

    def __init__(self, folder: Path, name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the VALUES of STEP."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish the log."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, configured by its environment variables."""

    def __init__(self, folder: Path, name: str) -> None:
        self._run = importlib.import_module("wandb").init(name=name, dir=str(folder))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the VALUES of STEP."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Finish the log."""
        self._run.finish()


class MLflow:
    """A run of MLflow, configured by its environment variables."""

    def __init__(self, folder: Path, name: str) -> None:
        self._mlflow = importlib.import_module("mlflow")
        self._mlflow.start_run(run_name=name)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the VALUES of STEP."""
        self._mlflow.log_metrics(values, step=step)

    def close(self) -> None:
        """Finish the log."""
        self._mlflow.end_run()


_SINKS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow}


def refuse_missing(report_to: Sequence[str]) -> None:
    """Raise UserError if a package in REPORT_TO is not installed."""
    for name in report_to:
        try:
            importlib.import_module(name)
        except ImportError:
            hint = f"run: pip install {_PIP[name]}   (or remove it from resources.report_to)"
            raise UserError(f"resources.report_to lists {name}, which is not installed", hint=hint) from None


class Live:
    """Logs to all sinks, about once per second; does nothing without a folder."""

    def __init__(self, folder: Path | None, name: str, report_to: Sequence[str]) -> None:
        self._said: float | None = None
        self._sinks: list[Sink] = []
        if folder is not None:
            self._sinks = [DvcLive(folder), *(_SINKS[sink](folder, name) for sink in report_to)]

    def log(self, step: int, values: dict[str, float], last: bool) -> None:
        """Log the VALUES of STEP; the first and the LAST are always logged."""
        now = time.monotonic()
        if self._said is None or last or now - self._said >= _SECONDS_BETWEEN:
            self._said = now
            for sink in self._sinks:
                sink.log(step, values)

    def close(self) -> None:
        """Finish the log."""
        for sink in self._sinks:
            sink.close()


def peak_flops(device: str) -> float | None:
    """Peak FLOP/s of the device with that name; None if unknown."""
    return next((_PEAK_FLOPS[part] for part in _PEAK_FLOPS if part in device), None)


def utilization(tokens_per_second: float, parameters: int, devices: int, device: str) -> float | None:
    """Model FLOPs utilization: 6 FLOPs per weight and token over the devices' peak (Chowdhery et al., 2022, PaLM, appendix B)."""
    peak = peak_flops(device)
    return None if peak is None else 6 * parameters * tokens_per_second / (peak * devices)
