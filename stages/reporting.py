"""What loggers are told after a training: its content address, what it came to, and what the evaluation says of it.

A training that `resources.report_to` watched leaves the runs of its loggers in its live folder. The runner calls this once a step has
ended; nothing here decides anything, and nothing that fails here fails the step.
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
"""The file in a live folder with the content address of what was watched."""


def report(live: Path, step: str, digest: str, metrics: Mapping[str, Any]) -> None:
    """Tell the loggers of the training that STEP is, or evaluates, its METRICS, and DIGEST where it is the training itself.

    LIVE is the folder of the live folders."""
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
    """Whether the training that was watched left what lies there now; another may have been restored since."""
    made = parse(provenance.read_bytes()) if provenance.is_file() else None
    return made is not None and watched.is_file() and watched.read_text("utf-8") == made.digest
