"""Merged weights as one GGUF file, with a Modelfile for Ollama."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.export.formats.base import GGUF_PACKAGES, GGUF_PRECISIONS, Exporting

if TYPE_CHECKING:
    from stages.export.material import Material
    from stages.export.runtimes.base import Runtime


class Gguf(Exporting):
    """One GGUF file for llama.cpp and what contains it, with a Modelfile for Ollama."""

    kind: Literal["gguf"] = "gguf"
    type: Literal["f16", "bf16", "q8_0", "q4_k_m"] = recipe("q8_0", "Type of the weights.")
    packages: ClassVar[tuple[str, ...]] = GGUF_PACKAGES
    extra: ClassVar[str] = "gguf"
    environment: ClassVar[tuple[str, ...]] = GGUF_PACKAGES

    @property
    def label(self) -> str:
        """Such as `gguf-q8_0`."""
        return f"gguf-{self.type}"

    @property
    def precision(self) -> str:
        """The type of the weights."""
        return GGUF_PRECISIONS.get(self.type, self.type)

    def exported(self, material: "Material") -> "AbstractContextManager[Runtime]":
        """Write the file, and start a server of llama.cpp with it."""
        from stages.export.writers.gguf import exported

        return exported(material, self.type)
