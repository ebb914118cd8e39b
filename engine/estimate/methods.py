"""How many parameters a training method learns, how many it adds to the model, and how many it saves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from engine.core.part import Part
from engine.estimate.models import Linear, Model, Stack
from stages.train.methods import Full, Ia3, Lora, PrefixTuning, PromptTuning, Qlora


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters."""

    trained: int
    added: int
    """Beside the model's own."""
    saved: int
    """In the artifact."""


def trainable_parameters(model: Model, method: Part) -> int | None:
    """The parameters of MODEL that METHOD trains; None for a method that is not known here, or one that finds no layer."""
    found = counts(model, method)
    return found.trained if found else None


def counts(model: Model, method: Part) -> Counts | None:
    """What METHOD does to MODEL, in parameters; None for a method that is not known here, or layers that are not there."""
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
    # MiCA freezes the upper matrix of each update.
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
    """Parameters of the modules that NAME ends; None where it is none of those that are counted here."""
    if _ends(model.embedding, name):
        return model.vocabulary * model.hidden
    return sum(count * layer.parameters for layer, count in targets(model, (name,))) or None


def _factors(model: Model, method: Ia3) -> int | None:
    """A factor for each output of some layers, and for each input of others."""
    names = method.layers(model.model_type)
    if names is None:
        return None
    outputs, inputs = names
    # peft takes a layer that is named on both sides for one whose inputs are scaled.
    scaled = [(layer, count, any(_ends(layer.name, name) for name in inputs)) for layer, count in targets(model, (*outputs, *inputs))]
    return sum(count * (layer.inputs if at_inputs else layer.outputs) for layer, count, at_inputs in scaled) or None


def lora_parameters(layer: Linear, r: int) -> int:
    """The two low-rank matrices beside LAYER, [r, inputs] and [outputs, r] (Hu et al., 2021, arXiv:2106.09685)."""
    return r * (layer.inputs + layer.outputs)


def targets(model: Model, target_modules: str | Sequence[str]) -> list[tuple[Linear, int]]:
    """The layers that get an update, and in how many layers of their stack, as peft chooses them.

    `all-linear` means all but the output layer. A name of a list is a layer's whole name or its end after a dot:
    `peft.tuners.tuners_utils.check_target_module_exists`.
    """
    if target_modules == "all-linear":
        return list(model.inside)
    inside = [(layer, _count(stack, layer, target_modules)) for stack in model.stacks for layer in stack.block]
    return [*inside, (model.head, int(any(_ends(model.head.name, name) for name in target_modules)))]


def _count(stack: Stack, layer: Linear, names: Sequence[str]) -> int:
    """In how many layers of STACK the NAMES hit LAYER: in all of them, or in those whose numbers they name."""
    if any(_ends(layer.name, name) for name in names):
        return stack.layers
    before = {name.removesuffix(f".{layer.name}") for name in names if name.endswith(f".{layer.name}")}
    numbers = {int(number) for path in before if (number := path.rpartition(".")[2]).isdecimal()}
    return sum(number < stack.layers and any(_ends(f"{stack.prefix}.{number}", path) for path in before) for number in numbers)


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")
