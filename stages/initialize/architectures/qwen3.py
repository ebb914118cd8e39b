"""Qwen3 (Yang et al., 2025, arXiv:2505.09388): Llama's layer with norms over each head's queries and keys."""

from typing import TYPE_CHECKING, Literal

from stages.initialize.architectures.sizes import Grouped

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Qwen3(Grouped):
    """Qwen3's decoder: Llama's layer with norms over each head's queries and keys."""

    kind: Literal["qwen3"] = "qwen3"

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import Qwen3Config

        return Qwen3Config(**self.sizes(vocab_size, eos, pad), head_dim=self.hidden_size // self.heads)
