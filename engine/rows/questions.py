"""What the process that answers is told: the models, then questions as rows of a task."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.process.starting import ours

if TYPE_CHECKING:
    from engine.rows.answers import Model

COMMAND = ours("stages.answering")
"""The process that answers."""


def opening(models: "Sequence[Model]") -> dict[str, Any]:
    """The first line that it is told."""
    return {"numerics": models[0].numerics, "threads": models[0].threads, "models": [model.request for model in models]}


def question_row(text: str, system: str | None) -> dict[str, Any]:
    """The question TEXT as a row of a task, with the prompt SYSTEM if it is not empty."""
    return {"id": identity_of(text), "group": "", "prompt": text} | ({"system": system} if system else {})


def identity_of(text: str) -> str:
    """The id of a question that has none: sampled answers are drawn by it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
