"""The DeepSpeed configuration that a spec's training runs with."""

from typing import Any

from engine.core.errors import UserError
from engine.spec.load import Spec
from stages.train.zero import as_zero, deepspeed_config


def configuration(spec: Spec) -> dict[str, Any]:
    """What DeepSpeed is given; raises UserError where the spec's training does without it."""
    zero = as_zero(spec.experiment.resources.zero)
    if not zero.stage:
        hint = "set resources.zero to 1, 2 or 3"
        raise UserError("this training runs without DeepSpeed: its devices share nothing", spec.where("resources", "zero"), hint)
    return deepspeed_config(zero, spec.experiment.training.max_grad_norm)
