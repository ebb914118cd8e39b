"""QLoRA (Dettmers et al., 2023, arXiv:2305.14314): low-rank updates of frozen weights in 4 or 8 bits, through bitsandbytes."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from stages.models.quantisation import Quantisation
from stages.train.methods.base import LowRank


class Qlora(Quantisation, LowRank):
    """Low-rank updates of quantised frozen weights; the adapter is for the model in full precision."""

    kind: Literal["qlora"] = "qlora"
    environment: ClassVar[tuple[str, ...]] = ("bitsandbytes", "peft")

    @model_validator(mode="after")
    def _base_stays(self) -> Self:
        if self.moves_base or self.init_lora_weights == "mica":
            what = 'init_lora_weights "{init}" needs full-precision weights, and qlora quantises them; use "orthogonal", or method lora'
            raise PydanticCustomError("quantised", what, {"init": self.init_lora_weights, "at": ("init_lora_weights",)})
        return self

    @property
    def quantisation(self) -> Quantisation:
        """Quantisation of the frozen weights."""
        return Quantisation(**{name: getattr(self, name) for name in Quantisation.model_fields})
