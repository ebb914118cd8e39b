"""What every training method answers: what it makes, how it prepares a model, and what it writes."""

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
    """Whether several rows may share one sequence."""
    checkpoints_layers: ClassVar[bool] = True
    """Whether layers may be computed again in the backward pass."""
    refused_families: ClassVar[dict[str, str]] = {}
    """Model types that it cannot train, each with the reason and the nearest thing that works."""

    free_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that may change when an adapter is trained further."""

    @property
    def dropout(self) -> float:
        """Share of numbers that the method itself drops while training."""
        return 0.0

    @property
    def virtual_tokens(self) -> int:
        """Positions that the method takes from the model's longest sequence."""
        return 0

    @property
    def quantisation(self) -> "Quantisation | None":
        """How the frozen weights are kept; None: as they are."""
        return None

    def as_saved(self) -> Self:
        """The method whose fresh adapter has the form of what this one saves."""
        return self

    def continued_fields(self) -> tuple[str, ...]:
        """The fields that must stay when an adapter is trained further."""
        return tuple(name for name in type(self).model_fields if name not in self.free_fields)

    def refused(self, model_type: str) -> str | None:
        """Why it cannot train a model of this type, and what can; None where it can."""
        return self.refused_families.get(model_type)

    def prepare(self, model: "PreTrainedModel", adapter: Path | None = None) -> Any:
        """MODEL ready to be trained, from ADAPTER on where one is continued; raises UserError where the two do not fit."""
        raise AssertionError(f"{type(self).__name__} prepares no model")

    def save(self, model: Any, folder: Path) -> None:
        """Write what was trained."""
        raise AssertionError(f"{type(self).__name__} saves nothing")


class AdapterMethod(TrainingMethod):
    """A method that leaves the model's own weights alone and makes an adapter through peft."""

    makes_adapter: ClassVar[bool] = True
    environment: ClassVar[tuple[str, ...]] = ("peft",)

    def configuration(self, model: "PreTrainedModel") -> Any:
        """peft's configuration for MODEL; raises UserError where the method's settings do not fit it."""
        raise AssertionError(f"{type(self).__name__} has no configuration")

    def prepare(self, model: "PreTrainedModel", adapter: Path | None = None) -> Any:
        """MODEL with frozen weights and a fresh adapter, which torch's seed decides, or ADAPTER to be trained further."""
        from peft import get_peft_model

        if reason := self.refused(model.config.model_type):
            raise UserError(reason)
        prepared = get_peft_model(model, self.configuration(model))
        if adapter is not None:
            from stages.models.folders import load_updates

            load_updates(prepared, adapter)
        return prepared

    def save(self, model: Any, folder: Path) -> None:
        """Write peft's two files of an adapter, normalised so that their bytes depend on nothing but weights and meaning."""
        from stages.models.folders import save_adapter

        save_adapter(model, folder)


def task_type(model: "PreTrainedModel") -> str:
    """peft's word for what MODEL does."""
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def has_transposed_layers(model: "PreTrainedModel") -> bool:
    """Whether MODEL keeps the matrices of its layers transposed, as GPT-2 does; told by its type, since quantised layers are not."""
    return bool(model.config.model_type == "gpt2")
