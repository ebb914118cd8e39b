"""Execution options of a prepared model: gradient checkpointing, compilation, fused kernels; results differ by rounding at most."""

import os
import sys
from typing import Any

from stages.models.folders import load_model
from stages.train import Parameters
from stages.train.loop.precision import prepare_precision, weights_dtype


def open_model(parameters: Parameters, folder: Any) -> Any:
    """The model in FOLDER with the training's precision, attention, and the method's quantisation."""
    prepare_precision(parameters)
    return load_model(folder, parameters.attention, weights_dtype(parameters), parameters.method.quantisation)


def speed_up(model: Any, parameters: Parameters) -> Any:
    """The prepared MODEL with the options in `[resources]`; inapplicable ones are reported on stderr and skipped."""
    if parameters.kernels == "liger":
        _fuse(model)
    if parameters.gradient_checkpointing:
        # Non-reentrant, so that the inputs of the first adapter need no gradient: https://docs.pytorch.org/docs/stable/checkpoint.html
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if parameters.torch_compile:
        # Only requested compilation is enabled (see prepare_process).
        os.environ.pop("TORCHDYNAMO_DISABLE", None)
        # In place, so that the names of the weights, under which they are saved, do not change.
        model.compile(dynamic=True)
    return model


def _fuse(model: Any) -> None:
    """Replace norms, rotary positions and feed-forward layers by liger's fused kernels; the loss is not replaced."""
    import torch

    if not torch.cuda.is_available():
        print("kernels: liger needs a GPU; using the model's own kernels", file=sys.stderr)
        return
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN, _apply_liger_kernel_to_instance
    except ImportError:
        print('kernels: liger-kernel is not installed (pip install "adapterbuild[gpu]"); using the model\'s own kernels', file=sys.stderr)
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if inner.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        print(f"kernels: liger does not support {inner.config.model_type}; using the model's own kernels", file=sys.stderr)
        return
    _apply_liger_kernel_to_instance(inner, cross_entropy=False, fused_linear_cross_entropy=False)
