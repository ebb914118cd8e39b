"""The interface of training methods: preparing a model, and saving the result."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from engine.core.errors import UserError
from engine.core.part import Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stages.models.quantisation import Quantisation


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


def task_type(model: "PreTrainedModel") -> str:
    """peft's task type of MODEL."""
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def has_transposed_layers(model: "PreTrainedModel") -> bool:
    """Whether MODEL stores transposed matrices, as GPT-2 does; decided by its type, since quantised layers are not transposed."""
    return bool(model.config.model_type == "gpt2")
