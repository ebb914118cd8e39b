"""The DeepSpeed configuration of a spec's training."""

from typing import Any

from engine.core.errors import UserError
from engine.spec.sections import Spec
from stages.train.zero import as_zero, deepspeed_config


def configuration(spec: Spec) -> dict[str, Any]:
    """The configuration passed to DeepSpeed; raises UserError if the training of SPEC does not use DeepSpeed."""
    training = spec.experiment.training
    if training is None:
        raise UserError("this spec trains nothing, so it has no DeepSpeed configuration", spec.where())
    zero = as_zero(spec.experiment.resources.zero)
    if not zero.stage:
        hint = "set resources.zero to 1, 2 or 3"
        raise UserError("this training does not use DeepSpeed: its ZeRO stage is 0", spec.where("resources", "zero"), hint)
    return deepspeed_config(zero, training.max_grad_norm)
