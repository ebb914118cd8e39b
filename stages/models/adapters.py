"""Adapters whose initial updates were subtracted from the frozen weights, converted to updates of the original weights."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_FIRST = "first_updates"


def remember_first(model: Any) -> None:
    """Store a copy of the initial updates of a peft MODEL in main memory."""
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    copies = {name: weight.detach().cpu().clone() for name, weight in weights.items() if ".lora_A." in name or ".lora_B." in name}
    model.__dict__[_FIRST] = copies


def for_untouched_base(model: Any, weights: dict[str, "Tensor"], config: dict[str, Any]) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """WEIGHTS and CONFIG of an adapter for the original model; unchanged if no frozen weight was modified.

    With W' = W - s B0 A0 kept frozen, W' + s B A = W + s (B A - B0 A0) = W + s [B, -B0] [A; A0]: twice the rank, and the same scale s
    (peft's own rule, `peft.tuners.lora.model.LoraModel.subtract_mutated_init`).
    """
    first = model.__dict__.get(_FIRST)
    if not first:
        return weights, config
    doubled = {name: _doubled(name, weight, first[name]) if name in first else weight for name, weight in weights.items()}
    # The scale is alpha / r, or alpha / sqrt(r).
    alpha = config["lora_alpha"] * (2**0.5 if config["use_rslora"] else 2)
    return doubled, config | {"r": 2 * config["r"], "lora_alpha": alpha}


def _doubled(name: str, weight: "Tensor", first: "Tensor") -> "Tensor":
    import torch

    lower = ".lora_A." in name
    return torch.cat([weight, first if lower else -first], dim=0 if lower else 1)
