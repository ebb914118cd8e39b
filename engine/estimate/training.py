"""Estimates for one training: parameters, device memory and disk space; advice if a device is too small; and the error of an estimate."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.core.part import Part
from engine.estimate.memory import FLOAT32, Layout, Memory, memory
from engine.estimate.methods import counts, kept_by_lora
from engine.estimate.models import Model, model_of
from stages.train import Parameters
from stages.train.methods import Qlora
from stages.train.objectives.distill import Distill

GIGABYTE = 1e9


@dataclass(frozen=True)
class Matter:
    """The model and data of a training that determine its memory; both may be upper bounds."""

    config: Mapping[str, Any]
    """The model's config.json."""
    length: int
    """Tokens of the longest row, or of the longest pair of answers: twice its longer one, to which both are padded."""
    exact_model: bool = True
    """Whether the vocabulary size is the actual one; a tokenizer trained on little text has fewer tokens than requested."""
    measured_length: bool = True
    """Whether `length` was measured; else it is tokenization.max_length."""
    supervised: float = 1.0
    """Fraction of tokens that are supervised."""
    answers: int = 1
    """Lines that a row takes: 2 of a pair of answers."""


@dataclass(frozen=True)
class Estimate:
    """The estimate of one training on one device."""

    parameters: int
    """Parameters of the model, including the adapter."""
    trainable: int
    memory: Memory
    disk: int
    """Bytes of the artifact's weights, in float32."""
    rows: int
    """Rows in a micro-batch."""
    makes_adapter: bool
    matter: Matter = field(repr=False)

    def as_data(self) -> dict[str, int | bool | str]:
        """Plain JSON values: the parts of the memory in bytes, and the assumptions of the estimate."""
        length = {"length": self.matter.length, "length_from": "longest row" if self.matter.measured_length else "max_length"}
        return {**self.memory.as_data(), "rows": self.rows, **length, "exact_model": self.matter.exact_model}


def estimate(parameters: Parameters, matter: Matter) -> Estimate | None:
    """The estimate of a training with PARAMETERS; None if its model or method is unknown."""
    model = model_of(matter.config)
    counted = counts(model, parameters.method) if model else None
    if model is None or counted is None:
        return None
    share = _share(parameters, matter.length)
    rows = min(parameters.micro_batch or share, share)
    # The reference of preferences was a step before, and KTO's mismatched answers are computed before the batch, without gradients: both
    # take less than the step itself.
    lines, length = rows * matter.answers, -(-matter.length // matter.answers) + parameters.method.virtual_tokens
    layout = layout_of(parameters)
    more = kept_by_lora(model, parameters.method, parameters.method.dropout, layout.activation)
    layout = replace(layout, accumulates=rows < share, supervised=matter.supervised, kept_by_lora=more)
    needed = memory(_with_attention(model, parameters), counted.trained, counted.added, lines, length, layout)
    makes_adapter = parameters.method.makes_adapter
    return Estimate(model.parameters + counted.added, counted.trained, needed, FLOAT32 * counted.saved, rows, makes_adapter, matter)


def _share(parameters: Parameters, length: int) -> int:
    """Rows of a global batch per device, over all its micro-batches."""
    batch = parameters.global_batch
    rows = max(1, batch.tokens // length) if batch.tokens else batch.rows
    return -(-rows // (parameters.devices * parameters.nodes))


def layout_of(parameters: Parameters) -> Layout:
    """The memory layout of a training with PARAMETERS: frozen weights in its precision, trained weights in float32."""
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
        compiled=parameters.torch_compile,
        distils=isinstance(parameters.objective, Distill),
    )


def _with_attention(model: Model, parameters: Parameters) -> Model:
    """MODEL, with one attention matrix stored per head if attention is `eager`."""
    if parameters.attention != "eager":
        return model
    return replace(model, stacks=tuple(replace(stack, matrices=model.heads) for stack in model.stacks))


def too_large(estimated: Estimate, device_memory: float) -> bool:
    """Whether the training does not fit a device with DEVICE_MEMORY gigabytes."""
    return estimated.memory.total > device_memory * GIGABYTE


def shortage(name: str, estimated: Estimate, device_memory: float) -> str:
    """Message that the training of step NAME does not fit a device with DEVICE_MEMORY gigabytes, and what to change."""
    needed = estimated.memory
    parts = {"weights": needed.weights, "gradients": needed.gradients, "optimizer states": needed.optimizer}
    parts[f"activations of {estimated.rows} {_unit(estimated)}s of {estimated.matter.length} tokens"] = needed.activations
    total, shown = gigabytes(needed.total), ", ".join(f"{gigabytes(size)} {what}" for what, size in parts.items())
    what = f"{name} does not fit its device: it needs about {total}, device_memory is {device_memory:g} GB"
    return f"{what}\n  {shown}\n  hint: {_advice(estimated, device_memory)}"


def _unit(estimated: Estimate) -> str:
    return "pair" if estimated.matter.answers > 1 else "row"


def _advice(estimated: Estimate, device_memory: float) -> str:
    room = device_memory * GIGABYTE - estimated.memory.states
    rows = int(room * estimated.rows / estimated.memory.activations)
    if rows >= 1:
        return f"set resources.micro_batch to {rows} or less; the result stays the same"
    if room > 0:
        what = f"even one {_unit(estimated)} of {estimated.matter.length} tokens does not fit"
        return f"{what}: set micro_batch to 1 and lower tokenization.max_length"
    if not estimated.makes_adapter:
        return 'set training.method to "lora", which has far fewer gradients and optimizer states; or use a smaller model or larger device'
    return "use a smaller model or larger device"


def gigabytes(size: float) -> str:
    """SIZE bytes as text in GB (10^9 bytes), with more decimals for small sizes."""
    value = size / GIGABYTE
    return f"{value:.0f} GB" if value >= 100 else f"{value:.1f} GB" if value >= 1 else f"{max(value, 0.01):.2f} GB"


def estimated(parameters: Part, inputs: Mapping[str, Path], measured: Mapping[str, Any]) -> dict[str, Any]:
    """The estimate for the actual longest row and micro-batch of a training; empty for other kinds and unknown models."""
    longest = measured.get("longest_row")
    if not isinstance(parameters, Parameters) or not isinstance(longest, int):
        return {}
    config = json.loads((inputs["model"] / "config.json").read_text("utf-8"))
    rows = measured.get("micro_batch_rows") or parameters.micro_batch
    matter = Matter(config, longest, supervised=measured.get("supervised_share", 1.0), answers=measured.get("answers_of_row", 1))
    found = estimate(parameters.model_copy(update={"micro_batch": rows}), matter)
    return {"estimated": found.as_data()} if found else {}


def needed(measured: Mapping[str, Any]) -> int | None:
    """The measured bytes that correspond to an estimate, those of the training itself; None if nothing was measured.

    Without `training_memory_bytes` (older runs, systems that do not report it): the process's peak minus its memory before the model.
    """
    peak: int = measured.get("training_memory_bytes") or measured.get("peak_memory_bytes", 0) - measured.get("memory_before_bytes", 0)
    return peak if peak > 0 else None


def error(measured: Mapping[str, Any]) -> float | None:
    """The relative error of the estimate, positive if it is too high; None if estimate or measurement is missing."""
    total, used = measured.get("estimated", {}).get("total"), needed(measured)
    return total / used - 1 if total and used else None
