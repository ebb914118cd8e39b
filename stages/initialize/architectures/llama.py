"""Llama (Touvron et al., 2023, arXiv:2302.13971): RMS norm, SwiGLU, rotary positions."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from engine.part import recipe
from stages.initialize.architectures.sizes import Sizes, refuse_odd_rotary, refuse_uneven_groups

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Llama(Sizes):
    """Llama's decoder: RMS norm, SwiGLU, rotary positions."""

    kind: Literal["llama"] = "llama"
    intermediate_size: int | None = recipe(None, "Width of the feed-forward layer; none given: 8/3 of hidden_size, rounded up to 8.", gt=0)
    kv_heads: int | None = recipe(None, "Key/value heads; none given: as many as heads.", gt=0)

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        refuse_odd_rotary(self.hidden_size, self.heads)
        refuse_uneven_groups(self.heads, self.kv_heads)
        return self

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size or -(-self.hidden_size * 8 // 3 // 8) * 8,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads or self.heads,
            max_position_embeddings=self.max_length,
            initializer_range=self.initializer_range,
            tie_word_embeddings=True,
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
