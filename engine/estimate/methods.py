"""How many parameters a training method learns, and how many it adds."""

from collections.abc import Sequence

from engine.estimate.models import Linear, Model
from engine.part import Part
from stages.train.methods import Full, Lora


def trainable_parameters(model: Model, method: Part) -> int | None:
    """The parameters of MODEL that METHOD trains; None for a method that is not known here, or one that finds no layer."""
    if isinstance(method, Full):
        return model.parameters
    if isinstance(method, Lora):
        chosen = targets(model, method.target_modules)
        return sum(count * lora_parameters(layer, method.r) for layer, count in chosen) or None
    return None


def lora_parameters(layer: Linear, r: int) -> int:
    """The two low-rank matrices beside LAYER, [r, inputs] and [outputs, r] (Hu et al., 2021, arXiv:2106.09685)."""
    return r * (layer.inputs + layer.outputs)


def targets(model: Model, target_modules: str | Sequence[str]) -> list[tuple[Linear, int]]:
    """The layers that get an update, and in how many decoder layers, as peft chooses them.

    `all-linear` means all but the output layer. A name of a list is a layer's whole name or its end after a dot:
    `peft.tuners.tuners_utils.check_target_module_exists`.
    """
    if target_modules == "all-linear":
        return [(layer, model.layers) for layer in model.block]
    inside = [(layer, _count(model, layer, target_modules)) for layer in model.block]
    return [*inside, (model.head, int(any(_ends(model.head.name, name) for name in target_modules)))]


def _count(model: Model, layer: Linear, names: Sequence[str]) -> int:
    """In how many decoder layers NAMES hit LAYER: in all of them, or in those whose numbers they name."""
    if any(_ends(layer.name, name) for name in names):
        return model.layers
    before = {name.removesuffix(f".{layer.name}") for name in names if name.endswith(f".{layer.name}")}
    numbers = {int(number) for path in before if (number := path.rpartition(".")[2]).isdecimal()}
    return sum(number < model.layers and any(_ends(f"{model.prefix}.{number}", path) for path in before) for number in numbers)


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")
