"""How the frozen weights were kept while adapters were trained."""

from typing import TYPE_CHECKING, ClassVar, Literal

from engine.part import Part, recipe

if TYPE_CHECKING:
    from stages.common.quantisation import Quantisation


class Quantised(Part):
    """How the base was kept while the adapters were trained: what they are merged into is the base as rounded by that."""

    bits: Literal[4, 8] = recipe(description="Bits of a frozen weight.")
    quant_type: Literal["nf4", "fp4"] = recipe(description="The numbers that 4 bits stand for.")
    double_quant: bool = recipe(description="Whether the blocks' constants are quantised as well.")
    compute_dtype: Literal["float32", "bfloat16", "float16"] = recipe(description="In what the 4-bit weights are multiplied.")
    environment: ClassVar[tuple[str, ...]] = ("bitsandbytes",)

    def quantisation(self) -> "Quantisation":
        """The same, as models are loaded with it."""
        from stages.common.quantisation import Quantisation

        return Quantisation(self.bits, self.quant_type, self.double_quant, self.compute_dtype)
