"""How a prepared model runs: layers computed twice, compiled, or with fused kernels; the results differ by rounding at most."""

import os
import sys
from typing import Any

from stages.models.folders import load_model
from stages.train import Parameters
from stages.train.loop.precision import prepare_precision, weights_dtype


def open_model(parameters: Parameters, folder: Any) -> Any:
    """The model in FOLDER as the training wants it: precision, attention, and the method's quantisation."""
    prepare_precision(parameters)
    return load_model(folder, parameters.attention, weights_dtype(parameters), parameters.method.quantisation)


def speed_up(model: Any, parameters: Parameters) -> Any:
    """The prepared MODEL with what `[resources]` asks for; what does not apply here is said on stderr and left out."""
    if parameters.kernels == "liger":
        _fuse(model)
    if parameters.gradient_checkpointing:
        # Without reentry nothing before the first adapter needs a gradient: https://docs.pytorch.org/docs/stable/checkpoint.html
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if parameters.torch_compile:
        # Only what is asked for is compiled (see prepare_process).
        os.environ.pop("TORCHDYNAMO_DISABLE", None)
        # In place: the names of the weights, by which they are saved, stay what they are.
        model.compile(dynamic=True)
    return model


def _fuse(model: Any) -> None:
    """Replace norms, rotary positions and feed-forward layers by liger's fused ones; the loss stays this project's own."""
    import torch

    if not torch.cuda.is_available():
        print("kernels: liger needs a GPU; the model's own kernels are used", file=sys.stderr)
        return
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN, _apply_liger_kernel_to_instance
    except ImportError:
        print('kernels: liger-kernel is not installed (pip install "adapterbuild[gpu]"); the model\'s own are used', file=sys.stderr)
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if inner.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        print(f"kernels: liger has none for {inner.config.model_type}; the model's own are used", file=sys.stderr)
        return
    _apply_liger_kernel_to_instance(inner, cross_entropy=False, fused_linear_cross_entropy=False)
