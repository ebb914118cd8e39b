"""The adapter alone as a GGUF LoRA, and its base."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.export.formats.base import GGUF_PACKAGES, GGUF_PRECISIONS, Adapter, Exporting

if TYPE_CHECKING:
    from stages.export.material import Material
    from stages.export.runtimes.base import Runtime

_UNSUPPORTED = {"use_dora": "DoRA", "modules_to_save": "whole layers", "bias": "biases", "special_tokens": "added tokens"}


class GgufLora(Exporting):
    """A GGUF LoRA in float32 that llama.cpp applies to its base at load time, the base as GGUF, and a Modelfile for Ollama."""

    kind: Literal["gguf_lora"] = "gguf_lora"
    base: Literal["f16", "bf16", "q8_0"] = recipe("f16", "Type of the base's weights.")
    packages: ClassVar[tuple[str, ...]] = GGUF_PACKAGES
    extra: ClassVar[str] = "gguf"
    environment: ClassVar[tuple[str, ...]] = GGUF_PACKAGES
    of_adapter: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """Such as `gguf-lora`."""
        return "gguf-lora" if self.base == "f16" else f"gguf-lora-{self.base}"

    @property
    def precision(self) -> str:
        """The type of the base's weights."""
        return GGUF_PRECISIONS.get(self.base, self.base)

    def refused(self, adapter: Adapter | None) -> tuple[str, str] | None:
        """Only low-rank updates of linear layers are a GGUF LoRA."""
        if refused := super().refused(adapter):
            return refused
        way = 'use { kind = "gguf" }, which merges them'
        if adapter is None:
            return "there is no adapter: the model is a whole one", 'use { kind = "gguf" }'
        if adapter.method not in ("lora", "qlora"):
            return f"llama.cpp applies low-rank updates only, and this adapter is trained with {adapter.method}", way
        found = [what for name, what in _UNSUPPORTED.items() if adapter.more.get(name)]
        return (f"a GGUF LoRA holds low-rank updates only, and this adapter has {', '.join(found)} too", way) if found else None

    def exported(self, material: "Material") -> "AbstractContextManager[Runtime]":
        """Write both files, and start a server of llama.cpp with them."""
        from stages.export.writers.gguf_lora import exported

        return exported(material, self.base)
