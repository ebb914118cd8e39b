"""Qwen2 (Yang et al., 2024, arXiv:2407.10671): Llama's layer with biases on queries, keys and values."""

from typing import TYPE_CHECKING, Literal

from stages.initialize.architectures.sizes import Grouped

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Qwen2(Grouped):
    """Qwen2's and Qwen2.5's decoder: Llama's layer with biases on queries, keys and values."""

    kind: Literal["qwen2"] = "qwen2"

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import Qwen2Config

        return Qwen2Config(**self.sizes(vocab_size, eos, pad))
