"""QLoRA (Dettmers et al., 2023, arXiv:2305.14314): low-rank updates beside weights that are frozen in 4 or 8 bits, through bitsandbytes."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.part import recipe
from stages.train.methods.lora import LowRank

if TYPE_CHECKING:
    from stages.common.quantisation import Quantisation


class Qlora(LowRank):
    """Low-rank updates beside weights that are frozen in few bits; the adapter is for the model in full precision."""

    kind: Literal["qlora"] = "qlora"
    bits: Literal[4, 8] = recipe(4, "Bits of a frozen weight.")
    quant_type: Literal["nf4", "fp4"] = recipe("nf4", "The numbers that 4 bits stand for: quantiles of a normal distribution, or floats.")
    double_quant: bool = recipe(True, "Quantise the blocks' constants as well (4 bits only).")
    compute_dtype: Literal["float32", "bfloat16", "float16"] = recipe("float32", "In what the 4-bit weights are multiplied.")
    environment: ClassVar[tuple[str, ...]] = ("bitsandbytes", "peft")

    @model_validator(mode="after")
    def _base_stays(self) -> Self:
        if self.moves_base or self.init_lora_weights == "mica":
            what = 'init_lora_weights "{init}" needs weights in full precision, which qlora has not; take "orthogonal" or lora'
            raise PydanticCustomError("quantised", what, {"init": self.init_lora_weights, "at": ("init_lora_weights",)})
        return self

    @property
    def quantisation(self) -> "Quantisation":
        """How the frozen weights are kept."""
        from stages.common.quantisation import Quantisation

        return Quantisation(self.bits, self.quant_type, self.double_quant, self.compute_dtype)
