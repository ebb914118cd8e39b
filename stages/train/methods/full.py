"""Train every weight of the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stages.train.methods.base import TrainingMethod

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Full(TrainingMethod):
    """Every weight of the model is trained; the result is a whole model."""

    kind: Literal["full"] = "full"
    makes_adapter: ClassVar[bool] = False
    learns_new_tokens: ClassVar[bool] = True

    def prepare(self, model: "PreTrainedModel", adapter: Path | None = None) -> "PreTrainedModel":
        """The model, unchanged."""
        assert adapter is None, "full training cannot continue an adapter"
        return model

    def save(self, model: Any, folder: Path) -> None:
        """Write the whole model, safetensors only, as a `from_pretrained` folder."""
        from stages.models.folders import save_model

        save_model(model, folder)
