"""IA3 (Liu et al., 2022, arXiv:2205.05638): learned scaling factors for keys, values and the feed-forward layer, through peft."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engine.core.errors import UserError
from engine.core.part import recipe
from stages.train.methods.base import AdapterMethod, has_transposed_layers, task_type

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bloom": (("query_key_value",), ("mlp.dense_4h_to_h",)),
    "falcon": (("query_key_value",), ("dense_4h_to_h",)),
    "gpt2": (("c_attn",), ("mlp.c_proj",)),
    "gpt_neox": (("query_key_value",), ("dense_4h_to_h",)),
    "llama": (("k_proj", "v_proj"), ("down_proj",)),
    "mistral": (("k_proj", "v_proj"), ("down_proj",)),
    "qwen2": (("q_proj", "v_proj"), ("down_proj",)),
    "qwen3": (("q_proj", "v_proj"), ("down_proj",)),
    "t5": (("k", "v"), ("wo",)),
}
"""Layers whose outputs are scaled, and feed-forward layers whose inputs are scaled, by model type, as in peft."""


class Ia3(AdapterMethod):
    """Learned scaling factors for keys, values and the feed-forward layer; the result is a very small adapter."""

    kind: Literal["ia3"] = "ia3"
    target_modules: tuple[str, ...] = recipe((), "Layers whose outputs are scaled; if empty, the architecture's defaults.")
    feedforward_modules: tuple[str, ...] = recipe((), "Layers whose inputs are scaled; if empty, the architecture's defaults.")
    environment: ClassVar[tuple[str, ...]] = ("peft",)

    def layers(self, model_type: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Names of the layers whose outputs and whose inputs are scaled; None if unknown for the architecture and not set."""
        if self.target_modules or self.feedforward_modules:
            return self.target_modules, self.feedforward_modules
        return TARGETS.get(model_type)

    def refused(self, model_type: str) -> str | None:
        """A message for an architecture without known layers to scale; None if they are known."""
        if self.layers(model_type) is None:
            return f"ia3 has no default layers for {model_type}: set method.target_modules and method.feedforward_modules"
        return super().refused(model_type)

    def configuration(self, model: "PreTrainedModel") -> Any:
        """peft's configuration; raises UserError for layers that the model does not have."""
        from peft import IA3Config

        from stages.train.layers import target_layers

        chosen = self.layers(model.config.model_type)
        if chosen is None:
            raise UserError(str(self.refused(model.config.model_type)))
        outputs, inputs = chosen
        target_layers(model, (*outputs, *inputs))
        return IA3Config(
            target_modules=[*outputs, *inputs],
            feedforward_modules=list(inputs),
            fan_in_fan_out=has_transposed_layers(model),
            task_type=task_type(model),
        )
