"""LoRA (Hu et al., 2021, arXiv:2106.09685): low-rank updates beside frozen weights, through peft."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engine.errors import UserError, did_you_mean
from engine.part import Part, recipe

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel


class Lora(Part):
    """Low-rank updates beside frozen weights; the result is an adapter."""

    kind: Literal["lora"] = "lora"
    r: int = recipe(16, "Rank of the updates.", gt=0)
    lora_alpha: int = recipe(32, "The updates are scaled by lora_alpha / r.", gt=0)
    lora_dropout: float = recipe(0.0, "Dropout before the updates, while training.", ge=0, lt=1)
    target_modules: Literal["all-linear"] | tuple[str, ...] = recipe("all-linear", "Layers that get an update: all linear ones, or names.")
    makes_adapter: ClassVar[bool] = True
    learns_new_tokens: ClassVar[bool] = True
    environment: ClassVar[tuple[str, ...]] = ("peft",)

    def prepare(self, model: "PreTrainedModel") -> Any:
        """MODEL with frozen weights and fresh low-rank updates, which torch's seed decides; raises UserError where layers do not fit."""
        from peft import LoraConfig, get_peft_model

        from stages.common.vocabulary import trainable_tokens

        targets = self._targets(model)
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules="all-linear" if self.target_modules == "all-linear" else list(self.target_modules),
            # GPT-2 keeps its weights transposed; peft would set this by itself, with a warning at each layer.
            fan_in_fan_out=any(type(layer).__name__ == "Conv1D" for layer in targets.values()),
            task_type="CAUSAL_LM",
            trainable_token_indices=trainable_tokens(model),
        )
        return get_peft_model(model, config)

    def save(self, model: Any, folder: Path) -> None:
        """Write peft's two adapter files, normalised so that their bytes depend on nothing but weights and meaning."""
        from stages.common.models import save_adapter

        save_adapter(model, folder)

    def _targets(self, model: "PreTrainedModel") -> dict[str, "Module"]:
        """The layers that get an update, by full name."""
        layers = linear_layers(model)
        if self.target_modules == "all-linear":
            chosen = {name: layer for name, layer in layers.items() if layer is not model.get_output_embeddings()}
        else:
            # peft itself passes over a name that matches nothing as long as another one does.
            for target in self.target_modules:
                if not any(_matches(name, target) for name in layers):
                    raise _no_such_layer(target, layers)
            chosen = {name: layer for name, layer in layers.items() if any(_matches(name, target) for target in self.target_modules)}
        if not chosen:
            raise UserError("target_modules names no layer", hint=_listed(layers))
        self._refuse_high_rank(chosen)
        return chosen

    def _refuse_high_rank(self, layers: dict[str, "Module"]) -> None:
        for name, layer in layers.items():
            if self.r > (side := min(layer.weight.shape)):
                hint = f"set training.method.r to at most {side}, or train this layer in full"
                raise UserError(f"r = {self.r} is larger than the smaller side of {name}, which is {side}: this is no low rank", hint=hint)


def linear_layers(model: "PreTrainedModel") -> dict[str, "Module"]:
    """The linear layers of MODEL by full name, GPT-2's transposed ones included."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear | Conv1D)}


def _matches(name: str, target: str) -> bool:
    """As peft matches a list of names: the whole name, or its end after a dot."""
    return name == target or name.endswith(f".{target}")


def _no_such_layer(target: str, layers: dict[str, "Module"]) -> UserError:
    near = did_you_mean(target, _short_names(layers)) or ""
    hint = f"{near} {_listed(layers)}" if near.startswith("did") else _listed(layers)
    return UserError(f"target_modules: the model has no linear layer '{target}'", hint=hint)


def _short_names(layers: dict[str, "Module"]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in layers})


def _listed(layers: dict[str, "Module"]) -> str:
    return f"the model's linear layers: {', '.join(_short_names(layers))}"
