"""In what numbers a training computes."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from engine.core.errors import UserError
from stages.models.folders import Dtype
from stages.train import Parameters

_HALF: dict[str, Dtype] = {"bfloat16": "bfloat16", "float16": "float16"}


def weights_dtype(parameters: Parameters) -> Dtype:
    """In what the model's weights are kept: frozen ones in the precision of the training, trained ones in float32.

    Half-precision weights that are trained would lose every update smaller than their last digit (Micikevicius et al., 2018,
    arXiv:1710.03740); an adapter's own weights are float32 in any case.
    """
    return _HALF.get(parameters.precision, "float32") if parameters.method.makes_adapter else "float32"


def autocast(parameters: Parameters, device: str) -> AbstractContextManager[Any]:
    """Where matrices are multiplied in the training's precision; DEVICE is a torch device type, `cpu` or `cuda`.

    To be left before the optimizer's step: inside, torch remembers the weights' copies in half precision.
    """
    import torch

    half = _HALF.get(parameters.precision)
    return torch.autocast(device, getattr(torch, half)) if half else nullcontext()


def scales_loss(parameters: Parameters) -> bool:
    """Whether the loss must be scaled up so that small gradients are no zeros: float16 alone needs it (`torch.amp.GradScaler`)."""
    return parameters.precision == "float16"


def prepare_precision(parameters: Parameters) -> None:
    """Say how float32 matrices are multiplied; raises UserError for a precision that this machine has not."""
    import torch

    if parameters.precision in ("float16", "tf32") and not torch.cuda.is_available():
        hint = 'set training.precision to "bfloat16" or "float32"'
        raise UserError(f"precision {parameters.precision} needs a GPU, and this machine has none", hint=hint)
    torch.set_float32_matmul_precision("high" if parameters.precision == "tf32" else "highest")
