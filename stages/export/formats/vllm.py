"""What vLLM serves: the adapter and its base, or a whole model, with the command line."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.export.formats.base import Adapter, Exporting

if TYPE_CHECKING:
    from stages.export.material import Material
    from stages.export.runtimes.base import Runtime

_REFUSED = {
    "use_dora": "vLLM refuses adapters with DoRA",
    "modules_to_save": "vLLM refuses adapters with modules_to_save",
    "bias": "vLLM refuses adapters with biases",
    "special_tokens": "vLLM takes the embeddings of the base, so those of added tokens would be lost",
    "patterns": "vLLM ignores ranks and scalings that differ by layer",
}


class Vllm(Exporting):
    """An adapter and its base as vLLM serves both, or a whole model, and the command line; tested with transformers and peft."""

    kind: Literal["vllm"] = "vllm"
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = recipe(16, "vLLM's limit of ranks, as in its `--max-lora-rank`.")
    dtype: Literal["float32", "bfloat16", "float16"] = recipe("bfloat16", "Type of the weights in memory, as in vLLM's `--dtype`.")
    of_adapter: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """`vllm`."""
        return "vllm"

    @property
    def precision(self) -> str:
        """The type of the weights in memory."""
        return self.dtype

    def refused(self, adapter: Adapter | None) -> tuple[str, str] | None:
        """What vLLM refuses, or ignores without a word."""
        if refused := super().refused(adapter):
            return refused
        way = 'use { kind = "merged" }, which vLLM serves as any model'
        if adapter is None:
            return None
        if adapter.method not in ("lora", "qlora"):
            return f"vLLM serves low-rank adapters only, and this one is trained with {adapter.method}", way
        if found := next((why for name, why in _REFUSED.items() if adapter.more.get(name)), None):
            return found, way
        if adapter.rank > self.max_lora_rank:
            return f"vLLM refuses rank {adapter.rank}, which is above max_lora_rank = {self.max_lora_rank}", "increase max_lora_rank"
        return None

    def exported(self, material: "Material") -> "AbstractContextManager[Runtime]":
        """Write the folders and the command line, and load them with transformers and peft."""
        from stages.export.writers.vllm import exported

        return exported(material, self.dtype, self.max_lora_rank)
