"""Numbers of a running training for people: DVCLive's files, and where asked TensorBoard, W&B and MLflow.

They hold times and speeds, and therefore lie outside of what the step leaves.
"""

import importlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.core.errors import UserError

DECIDES_NO_BYTES = True
"""Which processes a training runs in, and who watches them, is no part of its identity."""

_SECONDS_BETWEEN = 1.0
"""A step may take a millisecond; nobody watches that often."""

_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12}
"""Dense bfloat16 operations per second, from the makers' data sheets, by a part of the device's name; longer names first."""

_PIP = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}


class Sink(Protocol):
    """Takes the numbers of a step."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the VALUES of STEP."""

    def close(self) -> None:
        """Nothing follows."""


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

    def close(self) -> None:
        """Nothing follows."""
        self._live.end()


class TensorBoard:
    """TensorBoard's event files, below the live folder."""

    def __init__(self, folder: Path, name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the VALUES of STEP."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Nothing follows."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases; its own environment variables say whose."""

    def __init__(self, folder: Path, name: str) -> None:
        self._run = importlib.import_module("wandb").init(name=name, dir=str(folder))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the VALUES of STEP."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Nothing follows."""
        self._run.finish()


class MLflow:
    """A run of MLflow; its own environment variables say where."""

    def __init__(self, folder: Path, name: str) -> None:
        self._mlflow = importlib.import_module("mlflow")
        self._mlflow.start_run(run_name=name)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the VALUES of STEP."""
        self._mlflow.log_metrics(values, step=step)

    def close(self) -> None:
        """Nothing follows."""
        self._mlflow.end_run()


_SINKS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow}


def refuse_missing(report_to: Sequence[str]) -> None:
    """Raise UserError where a package that live metrics are to go to is not installed."""
    for name in report_to:
        try:
            importlib.import_module(name)
        except ImportError:
            hint = f"run: pip install {_PIP[name]}   (or leave it out of resources.report_to)"
            raise UserError(f"resources.report_to names {name}, which is not installed", hint=hint) from None


class Live:
    """Hands a step's numbers to all sinks, about once a second; does nothing without a folder."""

    def __init__(self, folder: Path | None, name: str, report_to: Sequence[str]) -> None:
        self._said: float | None = None
        self._sinks: list[Sink] = []
        if folder is not None:
            self._sinks = [DvcLive(folder), *(_SINKS[sink](folder, name) for sink in report_to)]

    def log(self, step: int, values: dict[str, float], last: bool) -> None:
        """Take the VALUES of STEP; the first and the LAST are never left out."""
        now = time.monotonic()
        if self._said is None or last or now - self._said >= _SECONDS_BETWEEN:
            self._said = now
            for sink in self._sinks:
                sink.log(step, values)

    def close(self) -> None:
        """Nothing follows."""
        for sink in self._sinks:
            sink.close()


def peak_flops(device: str) -> float | None:
    """Operations per second of the device with that name, None where it is not known."""
    return next((_PEAK_FLOPS[part] for part in _PEAK_FLOPS if part in device), None)


def utilization(tokens_per_second: float, parameters: int, devices: int, device: str) -> float | None:
    """Share of the devices' operations that the model itself takes: 6 per weight and token (Chowdhery et al., 2022, PaLM, appendix B)."""
    peak = peak_flops(device)
    return None if peak is None else 6 * parameters * tokens_per_second / (peak * devices)
