"""Llama (Touvron et al., 2023, arXiv:2302.13971): RMS norm, SwiGLU, rotary positions."""

from typing import TYPE_CHECKING, Literal

from stages.initialize.architectures.sizes import Grouped

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Llama(Grouped):
    """Llama's decoder: RMS norm, SwiGLU, rotary positions."""

    kind: Literal["llama"] = "llama"

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import LlamaConfig

        return LlamaConfig(**self.sizes(vocab_size, eos, pad))
