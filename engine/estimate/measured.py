"""What the memory of a training was estimated at, to stand beside what was measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.part import Part
from engine.estimate.training import Matter, estimate
from stages import train


def estimated(parameters: Part, inputs: Mapping[str, Path], measured: Mapping[str, Any]) -> dict[str, Any]:
    """The estimate for the longest row and the micro-batch that the training really had; nothing for other kinds and unknown models."""
    longest = measured.get("longest_row")
    if not isinstance(parameters, train.Parameters) or not isinstance(longest, int):
        return {}
    config = json.loads((inputs["model"] / "config.json").read_text("utf-8"))
    rows = measured.get("micro_batch_rows") or parameters.micro_batch
    matter = Matter(config, longest, supervised=measured.get("supervised_share", 1.0))
    found = estimate(parameters.model_copy(update={"micro_batch": rows}), matter)
    return {"estimated": found.as_data()} if found else {}


def needed(measured: Mapping[str, Any]) -> int | None:
    """The bytes that a training itself has taken, which is what an estimate is about; None where nothing was measured.

    Runs before this was measured, and systems that do not tell, say the process's peak less what it held before the model.
    """
    told = measured.get("training_memory_bytes")
    peak: int = told or measured.get("peak_memory_bytes", 0) - measured.get("memory_before_bytes", 0)
    return peak if peak > 0 else None


def error(measured: Mapping[str, Any]) -> float | None:
    """By which share the estimate is above what was measured (below: negative); None where one of them is not there."""
    total, taken = measured.get("estimated", {}).get("total"), needed(measured)
    return total / taken - 1 if total and taken else None
