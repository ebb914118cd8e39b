"""Frozen weights in 4 or 8 bits: replaces the linear layers of a loaded model by those of bitsandbytes.

Not through transformers' `quantization_config`, which replaces only modules whose class is exactly torch's Linear and so silently skips
all of Falcon's, which have a subclass (transformers 5.23, integrations/bitsandbytes.py).
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engine.core.part import Part, recipe

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel


class Quantisation(Part):
    """Quantisation of frozen matrices (Dettmers et al., 2023, arXiv:2305.14314; 8 bits: Dettmers et al., 2022, arXiv:2208.07339)."""

    bits: Literal[4, 8] = recipe(4, "Bits per frozen weight.")
    quant_type: Literal["nf4", "fp4"] = recipe("nf4", "4-bit data type: NormalFloat (quantiles of a normal distribution) or 4-bit float.")
    double_quant: bool = recipe(True, "Also quantise the block constants (4 bits only).")
    compute_dtype: Literal["float32", "bfloat16", "float16"] = recipe("float32", "Data type in which 4-bit weights are multiplied.")
    environment: ClassVar[tuple[str, ...]] = ("bitsandbytes",)


def quantise(model: "PreTrainedModel", quantisation: Quantisation) -> None:
    """Replace the linear layers of MODEL in place, except the output layer and those that must stay in full precision."""
    for name, layer in quantisable(model).items():
        new = _replacement(layer, quantisation)
        # Frozen weights need no gradient; bitsandbytes packs them when the module moves to its device.
        model.set_submodule(name, new.to(layer.weight.device))
    # peft selects its layer classes by these attributes.
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = quantisation.bits == 4, quantisation.bits == 8


def round_weights(model: "PreTrainedModel", quantisation: Quantisation) -> None:
    """Round the weights of MODEL that QUANTISATION would quantise to their quantised values, in the model's dtype."""
    from transformers.pytorch_utils import Conv1D

    for layer in quantisable(model).values():
        weight = _dequantised(_replacement(layer, quantisation).to(layer.weight.device), quantisation)
        layer.weight.data = (weight.T if isinstance(layer, Conv1D) else weight).to(layer.weight.dtype).contiguous()


def _dequantised(layer: Any, quantisation: Quantisation) -> Any:
    """The dequantised weights of a bitsandbytes layer, [outputs, inputs]."""
    from bitsandbytes.functional import int8_vectorwise_dequant

    if quantisation.bits == 4:
        from stages.models.few_bits import dequantised

        return dequantised(layer.weight)
    return int8_vectorwise_dequant(layer.weight.data, layer.weight.SCB)


def quantisable(model: "PreTrainedModel") -> dict[str, "Module"]:
    """The linear layers of MODEL to quantise, by full name."""
    from stages.models.layers import linear_layers

    full = set(model._keep_in_fp32_modules or ())
    head = model.get_output_embeddings()
    return {name: layer for name, layer in linear_layers(model).items() if layer is not head and not full & set(name.split("."))}


def _replacement(layer: Any, quantisation: Quantisation) -> Any:
    """A bitsandbytes layer with the weights of LAYER; GPT-2's transposed matrices are transposed back."""
    import bitsandbytes
    import torch
    from transformers.pytorch_utils import Conv1D

    weight = layer.weight.data.T.contiguous() if isinstance(layer, Conv1D) else layer.weight.data
    outputs, inputs = weight.shape
    options: dict[str, Any] = {"bias": layer.bias is not None}
    if quantisation.bits == 4:
        from stages.models.few_bits import Linear4bit

        new = Linear4bit(
            inputs,
            outputs,
            **options,
            compute_dtype=getattr(torch, quantisation.compute_dtype),
            compress_statistics=quantisation.double_quant,
            quant_type=quantisation.quant_type,
        )
        new.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, **_kept(new.weight))
    else:
        new = bitsandbytes.nn.Linear8bitLt(inputs, outputs, **options, has_fp16_weights=False, threshold=6.0)
        new.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    if layer.bias is not None:
        new.bias = torch.nn.Parameter(layer.bias.data, requires_grad=False)
    return new


def _kept(weight: Any) -> dict[str, Any]:
    """The constructor arguments of a 4-bit weight."""
    return {name: getattr(weight, name) for name in ("compress_statistics", "quant_type", "quant_storage", "blocksize", "module")}
