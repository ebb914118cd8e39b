"""Finds the layers that a method targets in a model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from engine.core.errors import UserError, did_you_mean
from stages.models.layers import linear_layers

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel


def target_layers(model: "PreTrainedModel", targets: Literal["all-linear"] | tuple[str, ...]) -> dict[str, "Module"]:
    """The linear layers of MODEL that match TARGETS, by full name; raises UserError for a name without a match."""
    layers = linear_layers(model)
    if targets == "all-linear":
        return {name: layer for name, layer in layers.items() if layer is not model.get_output_embeddings()}
    # peft ignores a name without a match as long as another one matches.
    for target in targets:
        if not any(matches(name, target) for name in layers):
            raise no_such_layer(target, layers)
    chosen = {name: layer for name, layer in layers.items() if any(matches(name, target) for target in targets)}
    if not chosen:
        raise UserError("target_modules is empty", hint=listed(layers))
    return chosen


def refuse_high_rank(layers: dict[str, "Module"], r: int) -> None:
    """Raise UserError if R exceeds the smaller dimension of a layer."""
    for name, layer in layers.items():
        if r > (side := smaller_side(layer)):
            hint = f"set training.method.r to at most {side}, or train this layer in full"
            raise UserError(f"r = {r} is not a low rank for {name}, whose smaller dimension is {side}", hint=hint)


def smaller_side(layer: "Module") -> int:
    """The smaller dimension of a linear layer, from its attributes: a quantised layer stores its matrix in another shape."""
    if hasattr(layer, "in_features"):
        return min(int(layer.in_features), int(layer.out_features))
    return min(layer.weight.shape)


def refuse_strangers(model: "PreTrainedModel", names: Iterable[str]) -> None:
    """Raise UserError for a name without a matching module."""
    modules = [name for name, _ in model.named_modules() if name]
    for target in names:
        if not any(matches(name, target) for name in modules):
            hint = did_you_mean(target, {name.rpartition(".")[2] for name in modules if not name.rpartition(".")[2].isdigit()})
            raise UserError(f"modules_to_save: the model has no module '{target}'", hint=hint)


def matches(name: str, target: str) -> bool:
    """Whether NAME matches TARGET as in peft: equal, or a suffix after a dot."""
    return name == target or name.endswith(f".{target}")


def no_such_layer(target: str, layers: Iterable[str]) -> UserError:
    """The error for a name in target_modules that matches none of LAYERS."""
    near = did_you_mean(target, _short_names(layers)) or ""
    hint = f"{near} {listed(layers)}" if near.startswith("did") else listed(layers)
    return UserError(f"target_modules: the model has no linear layer '{target}'", hint=hint)


def _short_names(layers: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in layers})


def listed(layers: Iterable[str]) -> str:
    """A hint with the short names of the linear layers."""
    return f"the model's linear layers: {', '.join(_short_names(layers))}"
