"""The numbers of parameters that a training method trains, adds to the model, and saves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from engine.core.part import Part
from engine.estimate.models import FLOAT32, Linear, Model, Stack
from stages.train.methods import Full, Ia3, Lora, PrefixTuning, PromptTuning, Qlora


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters."""

    trained: int
    added: int
    """In addition to those of the model."""
    saved: int
    """Stored in the artifact."""


def trainable_parameters(model: Model, method: Part) -> int | None:
    """The number of parameters that METHOD trains on MODEL; None for an unknown method, or if no layer matches."""
    found = counts(model, method)
    return found.trained if found else None


def counts(model: Model, method: Part) -> Counts | None:
    """The parameter counts of METHOD on MODEL; None for an unknown method, or if no layer matches."""
    match method:
        case Full():
            return Counts(model.parameters, 0, model.parameters)
        case Lora() | Qlora():
            return _low_rank(model, method)
        case Ia3():
            return _same(_factors(model, method))
        case PromptTuning():
            return _same(len(model.stacks) * method.num_virtual_tokens * model.hidden)
        case PrefixTuning():
            return _same(method.num_virtual_tokens * 2 * model.kv_width * model.stacks[0].layers)
        case _:
            return None


def _same(count: int | None) -> Counts | None:
    return Counts(count, count, count) if count else None


def _low_rank(model: Model, method: Lora | Qlora) -> Counts | None:
    chosen = [(layer, count) for layer, count in targets(model, method.target_modules) if count]
    whole = [_module(model, name) for name in method.modules_to_save]
    if not chosen or any(size is None for size in whole):
        return None
    copies = sum(size or 0 for size in whole)
    updates = sum(count * lora_parameters(layer, method.r) for layer, count in chosen)
    magnitudes = sum(count * layer.outputs for layer, count in chosen) if method.use_dora else 0
    # MiCA freezes the B matrix, [outputs, r], of each update.
    frozen = sum(count * method.r * layer.outputs for layer, count in chosen) if method.init_lora_weights == "mica" else 0
    added = updates + magnitudes + copies
    biases = _biases(model, method, chosen)
    return Counts(added - frozen + biases, added, added + biases + (updates if method.moves_base else 0))


def _biases(model: Model, method: Lora | Qlora, chosen: Sequence[tuple[Linear, int]]) -> int:
    match method.bias:
        case "none":
            return 0
        case "all":
            return model.biases
        case "lora_only":
            return sum(count * layer.outputs for layer, count in chosen if layer.bias)
        case _:
            assert_never(method.bias)


def _module(model: Model, name: str) -> int | None:
    """The number of parameters in modules whose name ends in NAME; None if there is no such linear or embedding layer."""
    if _ends(model.embedding, name):
        return model.vocabulary * model.hidden
    return sum(count * layer.parameters for layer, count in targets(model, (name,))) or None


def _factors(model: Model, method: Ia3) -> int | None:
    """IA3's factors: one per output of the target layers, one per input of the feed-forward layers; None if no layer matches."""
    names = method.layers(model.model_type)
    if names is None:
        return None
    outputs, inputs = names
    # peft scales the inputs of a layer that is in both lists.
    scaled = [(layer, count, any(_ends(layer.name, name) for name in inputs)) for layer, count in targets(model, (*outputs, *inputs))]
    return sum(count * (layer.inputs if at_inputs else layer.outputs) for layer, count, at_inputs in scaled) or None


_SHARED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("q", "k", "v"), ("wi_0", "wi_1"))
"""Linear layers, by the ends of their names, that read the same input."""
_AFTER_ATTENTION = ("o_proj", "o", "self_attention.dense", "attention.dense", "attn.c_proj")
"""Linear layers whose input attention keeps in any case."""


_RMS_NORMS = ("llama", "mistral", "qwen2", "qwen3", "t5")
"""Architectures whose norms keep their output for the gradient of their weights."""


def kept_by_lora(model: Model, method: Part, dropout: float, activation: int) -> int:
    """Bytes per token, over all layers, that LoRA keeps beyond activations of ACTIVATION bytes; negative if it keeps less.

    A frozen layer without an update keeps no input, and a frozen RMS norm no output. In half precision peft gives each adapted layer a
    float32 copy of its input, of which the multiplication keeps one in half precision; with DROPOUT, each has a mask in float32 and an
    input of its own. 0 for other methods.
    """
    if not isinstance(method, Lora | Qlora):
        return 0
    separate = dropout > 0 or activation < FLOAT32
    masks = 0
    elements = -model.hidden * model.norms if model.model_type in _RMS_NORMS else 0
    for stack in model.stacks:
        groups: dict[str, list[tuple[Linear, int]]] = {}
        for layer in stack.block:
            count = stack.layers if method.target_modules == "all-linear" else _count(stack, layer, method.target_modules)
            place, _, end = layer.name.rpartition(".")
            shared = next((names[0] for names in _SHARED if end in names), end)
            groups.setdefault(f"{place}.{shared}", []).append((layer, count))
        for group in groups.values():
            kept = (sum if separate else max)(count * layer.inputs for layer, count in group)
            first = stack.layers * group[0][0].inputs
            if any(_ends(group[0][0].name, name) for name in _AFTER_ATTENTION):
                kept = kept + first if separate else first
            elements += kept - first
            masks += sum(count * layer.inputs for layer, count in group) if dropout else 0
    return activation * elements + FLOAT32 * masks


def lora_parameters(layer: Linear, r: int) -> int:
    """The size of the two low-rank matrices of LAYER, [r, inputs] and [outputs, r] (Hu et al., 2021, arXiv:2106.09685)."""
    return r * (layer.inputs + layer.outputs)


def targets(model: Model, target_modules: str | Sequence[str]) -> list[tuple[Linear, int]]:
    """Each linear layer with the number of its instances that TARGET_MODULES selects, as peft does.

    `all-linear` selects all except the output layer. A name in a list matches a layer's full name or a suffix of it after a dot
    (`peft.tuners.tuners_utils.check_target_module_exists`).
    """
    if target_modules == "all-linear":
        return list(model.inside)
    inside = [(layer, _count(stack, layer, target_modules)) for stack in model.stacks for layer in stack.block]
    return [*inside, (model.head, int(any(_ends(model.head.name, name) for name in target_modules)))]


def _count(stack: Stack, layer: Linear, names: Sequence[str]) -> int:
    """The number of layers of STACK in which NAMES match LAYER: all, or those whose indices are in the names."""
    if any(_ends(layer.name, name) for name in names):
        return stack.layers
    before = {name.removesuffix(f".{layer.name}") for name in names if name.endswith(f".{layer.name}")}
    numbers = {int(number) for path in before if (number := path.rpartition(".")[2]).isdecimal()}
    return sum(number < stack.layers and any(_ends(f"{stack.prefix}.{number}", path) for path in before) for number in numbers)


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")
