"""Reports finished trainings to their loggers: content address, metrics, and evaluation.

A training with `resources.report_to` leaves the ids of its loggers' runs in its live folder. The runner calls this after a step; failures
here do not affect the step.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from engine.identity.provenance import parse
from stages.train.logging.loggers import Apart
from stages.train.logging.services import RUN, SINKS, flat

_TRAIN, _EVALUATE = "train-", "evaluate-"
_DIGEST = "digest"
"""File in a live folder with the content address of the logged training's result."""


def report(live: Path, step: str, digest: str, metrics: Mapping[str, Any]) -> None:
    """Send METRICS of STEP (a training, or its evaluation), and DIGEST for a training, to the loggers of the training.

    LIVE is the parent of the live folders."""
    training = step if step.startswith(_TRAIN) else step.replace(_EVALUATE, _TRAIN, 1) if step.startswith(_EVALUATE) else None
    if training is None:
        return
    told = {
        name: value for name, value in flat(metrics) if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    }
    folder, place = live / training, "training" if step == training else "evaluation"
    names = [name for name in SINKS if (folder / f"{name}{RUN}").is_file()]
    if not names:
        return
    if step == training:
        (folder / _DIGEST).write_text(digest, "utf-8")
    elif not _is_of(folder / _DIGEST, live.with_name(f"{training}.provenance.json")):
        return
    summary = {f"{place}/{name.replace('.', '/')}": float(value) for name, value in told.items()}
    started = [Apart(name, folder, training) for name in names]
    for logger in started:
        logger.tell(summary=summary, digest=digest if step == training else None)
    for logger in started:
        logger.close(True)


def _is_of(watched: Path, provenance: Path) -> bool:
    """Whether the current artifact is the result of the logged training; another may have been restored since."""
    made = parse(provenance.read_bytes()) if provenance.is_file() else None
    return made is not None and watched.is_file() and watched.read_text("utf-8") == made.digest
