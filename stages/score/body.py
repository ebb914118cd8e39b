"""Body of score: averages an experiment's metrics, and the validation loss of its training, over tasks."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from stages.process.job import Job, Metrics
from stages.score import Parameters

DIGITS = 6
"""Decimal digits of the averages, as of what they are made of."""

VALIDATION_LOSS = "validation_loss"


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `scores.json`, each value by metric and task, and return the mean of each metric: numbers only, no tables, for DVC.

    A metric that was measured on some of the tasks only is averaged over these; one that was measured on none is left out.
    """
    measured = _read(job.inputs["evaluation"])
    found = {name: {task: measured[task][name] for task in parameters.tasks if name in measured[task]} for name in parameters.metrics}
    if training := job.inputs.get("training"):
        found[VALIDATION_LOSS] = dict(_read(training)[VALIDATION_LOSS])
    found = {name: by_task for name, by_task in found.items() if by_task}
    (job.output / "scores.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return {name: round(fmean(by_task.values()), DIGITS) for name, by_task in found.items()}


def _read(path: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    return content
