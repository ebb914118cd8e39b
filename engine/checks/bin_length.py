"""What a spec's batching means for other steps: the length of the mixture's bins, and models whose rows cannot lie one behind another."""

from engine.core.errors import Problem
from engine.spec.load import Spec
from engine.spec.sections import Experiment, ScratchModel
from stages.train.batching import Packed

_NOT_FLAT = {
    "bloom": "its ALiBi attention cannot be told where a row ends",
    "t5": "its encoder and decoder take rows one below another",
}
"""Architectures whose rows cannot lie one behind another, and why."""


def bin_tokens(experiment: Experiment) -> int | None:
    """Tokens of a bin; None where rows are not packed."""
    batching = experiment.training.batching
    return (batching.length or experiment.tokenization.max_length) if isinstance(batching, Packed) else None


def unpackable(spec: Spec) -> list[Problem]:
    """Why rows cannot be laid one behind another, where the specs tell; a training checks its model itself before the first step."""
    batching, model = spec.experiment.training.batching, spec.experiment.model
    if not (batching.flat and isinstance(model, ScratchModel)) or (reason := _NOT_FLAT.get(model.architecture.kind)) is None:
        return []
    what = f"batching {batching.kind} cannot be with {model.architecture.kind}: {reason}"
    return [Problem(what, spec.where("training", "batching"), 'set training.batching to "padded"')]
