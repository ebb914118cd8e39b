"""What one training takes: parameters, memory of a device, disk; and what to change where a device is too small."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.estimate.memory import FLOAT32, Layout, Memory, memory
from engine.estimate.methods import counts
from engine.estimate.models import Model, model_of
from stages.train import Parameters
from stages.train.methods import Qlora

GIGABYTE = 1e9


@dataclass(frozen=True)
class Matter:
    """What a training computes with: the model's configuration and the longest row; both may be known only as upper bounds."""

    config: Mapping[str, Any]
    length: int
    """Tokens of the longest row."""
    exact_model: bool = True
    """Whether the vocabulary is the real one; little text gives fewer tokens than the recipe allows."""
    measured_length: bool = True
    """Whether LENGTH was measured; otherwise it is tokenization's max_length."""
    supervised: float = 1.0
    """Share of the tokens that something is learnt from."""


@dataclass(frozen=True)
class Estimate:
    """What one training will take on one device."""

    parameters: int
    """Of the model, with the adapter's own."""
    trainable: int
    memory: Memory
    disk: int
    """Bytes of the artifact's weights, in float32."""
    rows: int
    """Rows that the device computes at once."""
    makes_adapter: bool
    matter: Matter = field(repr=False)

    def as_data(self) -> dict[str, int | bool | str]:
        """What the memory was estimated for, and its parts in bytes."""
        length = {"length": self.matter.length, "length_from": "longest row" if self.matter.measured_length else "max_length"}
        return {**self.memory.as_data(), "rows": self.rows, **length, "exact_model": self.matter.exact_model}


def estimate(parameters: Parameters, matter: Matter) -> Estimate | None:
    """What a training with PARAMETERS takes; None where its model or its method is not known here."""
    model = model_of(matter.config)
    counted = counts(model, parameters.method) if model else None
    if model is None or counted is None:
        return None
    share = _share(parameters, matter.length)
    rows = min(parameters.micro_batch or share, share)
    length = matter.length + parameters.method.virtual_tokens
    layout = replace(layout_of(parameters), accumulates=rows < share, supervised=matter.supervised)
    needed = memory(_with_attention(model, parameters), counted.trained, counted.added, rows, length, layout)
    makes_adapter = parameters.method.makes_adapter
    return Estimate(model.parameters + counted.added, counted.trained, needed, FLOAT32 * counted.saved, rows, makes_adapter, matter)


def _share(parameters: Parameters, length: int) -> int:
    """Rows of a global batch that a device computes, at once or one micro-batch after another."""
    batch = parameters.global_batch
    rows = max(1, batch.tokens // length) if batch.tokens else batch.rows
    return -(-rows // (parameters.devices * parameters.nodes))


def layout_of(parameters: Parameters) -> Layout:
    """How a training with PARAMETERS keeps its numbers: frozen weights in its precision, trained ones in float32."""
    half = 2 if parameters.precision in ("bfloat16", "float16") else FLOAT32
    method = parameters.method
    bits = method.bits if isinstance(method, Qlora) else None
    return Layout(
        weight_bytes=half if method.makes_adapter else FLOAT32,
        trained_bytes=FLOAT32,
        activation_bytes=half,
        optimizer_bytes=parameters.optimizer.state_bytes,
        quantisation_bits=bits,
        double_quant=isinstance(method, Qlora) and method.double_quant,
        gradient_checkpointing=parameters.gradient_checkpointing,
        zero_stage=parameters.zero.stage,
        devices=parameters.devices * parameters.nodes,
        offload_optimizer=parameters.zero.offload_optimizer is not None,
        offload_parameters=parameters.zero.offload_parameters is not None,
    )


def _with_attention(model: Model, parameters: Parameters) -> Model:
    """MODEL with the shares of each head kept, where attention is asked for that keeps them."""
    if parameters.attention != "eager":
        return model
    return replace(model, stacks=tuple(replace(stack, matrices=model.heads) for stack in model.stacks))


def too_large(estimated: Estimate, device_memory: float) -> bool:
    """Whether the training cannot fit a device of DEVICE_MEMORY gigabytes."""
    return estimated.memory.total > device_memory * GIGABYTE


def shortage(name: str, estimated: Estimate, device_memory: float) -> str:
    """Why the training of step NAME does not fit a device of DEVICE_MEMORY gigabytes, and what to change."""
    needed = estimated.memory
    parts = {"weights": needed.weights, "gradients": needed.gradients, "optimizer states": needed.optimizer}
    parts[f"activations of {estimated.rows} rows of {estimated.matter.length} tokens"] = needed.activations
    total, shown = gigabytes(needed.total), ", ".join(f"{gigabytes(size)} {what}" for what, size in parts.items())
    what = f"{name} cannot fit its device: about {total} are needed, device_memory is {device_memory:g} GB"
    return f"{what}\n  {shown}\n  hint: {_advice(estimated, device_memory)}"


def _advice(estimated: Estimate, device_memory: float) -> str:
    room = device_memory * GIGABYTE - estimated.memory.states
    rows = int(room * estimated.rows / estimated.memory.activations)
    if rows >= 1:
        return f"set resources.micro_batch to {rows} or less; the result stays the same"
    if room > 0:
        return f"even one row of {estimated.matter.length} tokens is too much: set micro_batch to 1 and tokenization.max_length lower"
    if not estimated.makes_adapter:
        return 'training.method = "lora" has far fewer gradients and optimizer states; or take a smaller model or a larger device'
    return "take a smaller model or a larger device"


def gigabytes(size: float) -> str:
    """SIZE bytes in GB of 10^9 bytes, two digits behind the point below one."""
    value = size / GIGABYTE
    return f"{value:.0f} GB" if value >= 100 else f"{value:.1f} GB" if value >= 1 else f"{max(value, 0.01):.2f} GB"
