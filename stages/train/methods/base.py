"""The interface of training methods: preparing a model, and saving the result; and what adapters, and low-rank ones, have in common."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.errors import UserError
from engine.core.part import Part, recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stages.models.quantisation import Quantisation


Initialisation = Literal["default", "gaussian", "orthogonal", "olora", "pissa", "pissa_niter_16", "mica"]
"""peft's data-free initializations; `default`: A at random, B zero (Hu et al., section 4.1)."""

_MOVES_BASE = ("olora", "pissa", "pissa_niter_16")
"""Initializations that subtract the initial update from the frozen weights (Büyükakyüz, 2024, arXiv:2406.01775; Meng et al., 2024,
arXiv:2404.02948); the saved adapter is converted to an update of the original weights."""


class TrainingMethod(Part):
    """Which weights are trained, and how."""

    kind: str
    makes_adapter: ClassVar[bool]
    packs: ClassVar[bool] = True
    """Whether it supports several rows per sequence (packing)."""
    checkpoints_layers: ClassVar[bool] = True
    """Whether it supports gradient checkpointing."""
    refused_families: ClassVar[dict[str, str]] = {}
    """Unsupported model types, each with the reason and the closest alternative."""

    free_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that may change when training of an adapter continues."""

    @property
    def dropout(self) -> float:
        """Dropout probability of the method."""
        return 0.0

    @property
    def virtual_tokens(self) -> int:
        """Positions of the model's context that the method uses."""
        return 0

    @property
    def quantisation(self) -> "Quantisation | None":
        """Quantisation of the frozen weights; None: none."""
        return None

    def as_saved(self) -> Self:
        """The method whose fresh adapter has the same tensors as the adapter that this one saves."""
        return self

    def continued_fields(self) -> tuple[str, ...]:
        """Fields that must not change when training of an adapter continues."""
        return tuple(name for name in type(self).model_fields if name not in self.free_fields)

    def refused(self, model_type: str) -> str | None:
        """Why it does not support this model type, with an alternative; None if it does."""
        return self.refused_families.get(model_type)

    def prepare(self, model: "PreTrainedModel", adapter: Path | None = None) -> Any:
        """MODEL ready for training, continuing from ADAPTER if given; raises UserError if they do not fit each other."""
        raise AssertionError(f"{type(self).__name__} prepares no model")

    def save(self, model: Any, folder: Path) -> None:
        """Write the trained weights."""
        raise AssertionError(f"{type(self).__name__} saves nothing")


class AdapterMethod(TrainingMethod):
    """A method that freezes the model's weights and trains an adapter through peft."""

    makes_adapter: ClassVar[bool] = True
    environment: ClassVar[tuple[str, ...]] = ("peft",)

    def configuration(self, model: "PreTrainedModel") -> Any:
        """peft's configuration for MODEL; raises UserError if the method's settings do not fit it."""
        raise AssertionError(f"{type(self).__name__} has no configuration")

    def prepare(self, model: "PreTrainedModel", adapter: Path | None = None) -> Any:
        """MODEL with frozen weights and a fresh adapter (by torch's seed), or ADAPTER with trainable weights."""
        from peft import get_peft_model

        if reason := self.refused(model.config.model_type):
            raise UserError(reason)
        prepared = get_peft_model(model, self.configuration(model))
        if adapter is not None:
            from stages.models.folders import load_updates

            load_updates(prepared, adapter)
        return prepared

    def save(self, model: Any, folder: Path) -> None:
        """Write peft's two adapter files, normalised so that their bytes depend only on weights and configuration."""
        from stages.models.folders import save_adapter

        save_adapter(model, folder)


class LowRank(AdapterMethod):
    """Common to LoRA and QLoRA: low-rank updates."""

    r: int = recipe(16, "Rank of the updates.", gt=0)
    lora_alpha: int = recipe(32, "Updates are scaled by lora_alpha / r.", gt=0)
    lora_dropout: float = recipe(0.0, "Dropout probability on the inputs of the updates during training.", ge=0, lt=1)
    target_modules: Literal["all-linear"] | tuple[str, ...] = recipe("all-linear", "Layers with an update: all linear layers, or names.")
    use_rslora: bool = recipe(False, "rsLoRA: scale by lora_alpha / sqrt(r) instead (Kalajdzievski, 2023, arXiv:2312.03732).")
    use_dora: bool = recipe(False, "DoRA: train magnitude and direction of weights separately (Liu et al., 2024, arXiv:2402.09353).")
    init_lora_weights: Initialisation = recipe("default", "Initialization of the updates.")
    modules_to_save: tuple[str, ...] = recipe((), "Modules that are trained in full and saved with the adapter, such as `lm_head`.")
    bias: Literal["none", "all", "lora_only"] = recipe("none", "Which biases of the model are trained.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.use_dora and self.moves_base:
            what = "use_dora is incompatible with init_lora_weights {init}: DoRA updates cannot be converted to the original base; "
            hint = 'use "orthogonal", which does not modify the base'
            raise PydanticCustomError("dora", what + hint, {"init": self.init_lora_weights, "at": ("use_dora",)})
        if self.init_lora_weights == "mica" and self.use_dora:
            raise PydanticCustomError(
                "mica", "init_lora_weights mica freezes half of each update and is incompatible with use_dora: remove one of them"
            )
        if self.init_lora_weights == "orthogonal" and self.r % 2:
            raise PydanticCustomError("odd", "orthogonal needs an even r, not {r}", {"r": self.r, "at": ("r",)})
        return self

    @property
    def dropout(self) -> float:
        """The dropout probability on the inputs of the updates."""
        return self.lora_dropout

    free_fields: ClassVar[frozenset[str]] = frozenset({"lora_dropout", "compute_dtype"})

    def as_saved(self) -> Self:
        """With an initialization that modifies the base, adapters are saved with twice the rank, at the same scale."""
        if not self.moves_base:
            return self.model_copy(update={"init_lora_weights": "default"})
        alpha = self.lora_alpha * (2**0.5 if self.use_rslora else 2)
        return self.model_copy(update={"r": 2 * self.r, "lora_alpha": alpha, "init_lora_weights": "default"})

    @property
    def moves_base(self) -> bool:
        """Whether the initial updates are subtracted from the frozen weights."""
        return self.init_lora_weights in _MOVES_BASE

    def configuration(self, model: "PreTrainedModel") -> Any:
        """peft's configuration; raises UserError for layers that the model does not have or that are smaller than the rank."""
        from peft import LoraConfig

        from stages.models.added_tokens import trainable_tokens
        from stages.train.layers import refuse_high_rank, refuse_strangers, target_layers

        refuse_high_rank(target_layers(model, self.target_modules), self.r)
        refuse_strangers(model, self.modules_to_save)
        return LoraConfig(
            r=self.r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules="all-linear" if self.target_modules == "all-linear" else list(self.target_modules),
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            init_lora_weights=True if self.init_lora_weights == "default" else self.init_lora_weights,
            modules_to_save=list(self.modules_to_save) or None,
            bias=self.bias,
            # GPT-2 stores transposed weights; peft would set this automatically, with a warning for each layer.
            fan_in_fan_out=has_transposed_layers(model),
            task_type=task_type(model),
            trainable_token_indices=trainable_tokens(model),
        )

    def prepare(self, model: "PreTrainedModel", adapter: Path | None = None) -> Any:
        """MODEL with low-rank updates; initial updates are stored if they were subtracted from the frozen weights."""
        prepared = super().prepare(model, adapter)
        if self.moves_base and adapter is None:
            from stages.models.adapters import remember_first

            remember_first(prepared)
        return prepared


def task_type(model: "PreTrainedModel") -> str:
    """peft's task type of MODEL."""
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def has_transposed_layers(model: "PreTrainedModel") -> bool:
    """Whether MODEL stores transposed matrices, as GPT-2 does; decided by its type, since quantised layers are not transposed."""
    return bool(model.config.model_type == "gpt2")
