"""Checks of a spec's batching: the bin length for the mixture, and models that do not support packed rows."""

from typing import TYPE_CHECKING

from engine.core.errors import Problem
from engine.spec.models import ScratchModel
from stages.train.batching import Packed

if TYPE_CHECKING:
    from engine.spec.sections import Experiment, Spec, Training

_NOT_FLAT = {
    "bloom": "its ALiBi attention does not support row boundaries inside a sequence",
    "t5": "its encoder and decoder support padded batches only",
}
"""Architectures that do not support several rows in one sequence, and why."""


def bin_tokens(experiment: "Experiment", training: "Training") -> int | None:
    """Length of a bin of TRAINING in tokens; None if rows are not packed."""
    batching = training.batching
    return (batching.length or experiment.tokenization.max_length) if isinstance(batching, Packed) else None


def unpackable(spec: "Spec", training: "Training") -> list[Problem]:
    """A problem if the TRAINING of SPEC puts several rows into one sequence and its model from scratch does not support it.

    For other models the training itself checks this before its first step.
    """
    batching, model = training.batching, spec.experiment.model
    if not (batching.flat and isinstance(model, ScratchModel)) or (reason := _NOT_FLAT.get(model.architecture.kind)) is None:
        return []
    what = f"{model.architecture.kind} does not support batching '{batching.kind}': {reason}"
    return [Problem(what, spec.where("training", "batching"), 'set training.batching to "padded"')]
