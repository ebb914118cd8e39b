"""Mistral (Jiang et al., 2023, arXiv:2310.06825): Llama's layer, with a sliding window where the context is longer than it."""

from typing import TYPE_CHECKING, Literal

from stages.initialize.architectures.sizes import Grouped

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Mistral(Grouped):
    """Mistral's decoder: Llama's layer; the sliding window is as long as the model's context, so attention is full."""

    kind: Literal["mistral"] = "mistral"

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import MistralConfig

        return MistralConfig(**self.sizes(vocab_size, eos, pad), sliding_window=self.max_length)
