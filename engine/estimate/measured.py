"""The estimated memory of a finished training, for comparison with the measured one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.part import Part
from engine.estimate.training import Matter, estimate
from stages import train


def estimated(parameters: Part, inputs: Mapping[str, Path], measured: Mapping[str, Any]) -> dict[str, Any]:
    """The estimate for the actual longest row and micro-batch of a training; empty for other kinds and unknown models."""
    longest = measured.get("longest_row")
    if not isinstance(parameters, train.Parameters) or not isinstance(longest, int):
        return {}
    config = json.loads((inputs["model"] / "config.json").read_text("utf-8"))
    rows = measured.get("micro_batch_rows") or parameters.micro_batch
    matter = Matter(config, longest, supervised=measured.get("supervised_share", 1.0))
    found = estimate(parameters.model_copy(update={"micro_batch": rows}), matter)
    return {"estimated": found.as_data()} if found else {}


def needed(measured: Mapping[str, Any]) -> int | None:
    """The measured bytes that correspond to an estimate, those of the training itself; None if nothing was measured.

    Without `training_memory_bytes` (older runs, systems that do not report it): the process's peak minus its memory before the model.
    """
    peak: int = measured.get("training_memory_bytes") or measured.get("peak_memory_bytes", 0) - measured.get("memory_before_bytes", 0)
    return peak if peak > 0 else None


def error(measured: Mapping[str, Any]) -> float | None:
    """The relative error of the estimate, positive if it is too high; None if estimate or measurement is missing."""
    total, used = measured.get("estimated", {}).get("total"), needed(measured)
    return total / used - 1 if total and used else None
