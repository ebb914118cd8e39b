"""Numerical precision of a training."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from engine.core.errors import UserError
from stages.models.folders import Dtype
from stages.process import numerics
from stages.train import Parameters

_HALF: dict[str, Dtype] = {"bfloat16": "bfloat16", "float16": "float16"}


def weights_dtype(parameters: Parameters) -> Dtype:
    """Data type of the model's weights: the training's precision for frozen weights, float32 for trained ones.

    Trained half-precision weights would lose updates smaller than their resolution (Micikevicius et al., 2018, arXiv:1710.03740); an
    adapter's weights are always float32.
    """
    return _HALF.get(parameters.precision, "float32") if parameters.method.makes_adapter else "float32"


def autocast(parameters: Parameters, device: str) -> AbstractContextManager[Any]:
    """Context in which matrices are multiplied in the training's precision; DEVICE is a torch device type, `cpu` or `cuda`.

    Must be exited before the optimizer's step, because torch caches half-precision copies of weights inside.
    """
    import torch

    half = _HALF.get(parameters.precision)
    return torch.autocast(device, getattr(torch, half)) if half else nullcontext()


def scales_loss(parameters: Parameters) -> bool:
    """Whether the loss must be scaled against underflow of gradients: only float16 needs it (`torch.amp.GradScaler`)."""
    return parameters.precision == "float16"


def prepare_precision(parameters: Parameters) -> None:
    """Set the precision of float32 matrix products; raises UserError for a precision that this machine does not support."""
    import torch

    if parameters.precision in ("float16", "tf32") and not torch.cuda.is_available():
        hint = 'set training.precision to "bfloat16" or "float32"'
        raise UserError(f"precision {parameters.precision} needs a GPU, and this machine has none", hint=hint)
    if parameters.precision == "bfloat16" and not torch.cuda.is_available():
        numerics.say_slow_bfloat16()
    torch.set_float32_matmul_precision("high" if parameters.precision == "tf32" else "highest")
