"""Falcon (Almazrouei et al., 2023, arXiv:2311.16867): parallel attention and feed-forward, rotary positions."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from engine.core.part import recipe
from stages.initialize.architectures.sizes import Sizes, refuse_odd_rotary, refuse_uneven_groups

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Falcon(Sizes):
    """Falcon's decoder: parallel attention and feed-forward, rotary positions."""

    kind: Literal["falcon"] = "falcon"
    kv_heads: int | None = recipe(None, "Key/value heads of the new decoder architecture; if unset, as many as heads.", gt=0)
    rope_theta: float = recipe(10_000.0, "Base of the rotary frequencies; smaller for short contexts.", gt=1)
    new_decoder_architecture: bool = recipe(True, "Use the layer of Falcon 40B and 180B; false: that of Falcon 7B.")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        refuse_odd_rotary(self.hidden_size, self.heads)
        refuse_uneven_groups(self.heads, self.kv_heads)
        # transformers would ignore it: the older layer always has one shared key/value head.
        if self.kv_heads not in (None, 1) and not self.new_decoder_architecture:
            raise ValueError("kv_heads needs new_decoder_architecture = true; the older layer has one shared key/value head")
        return self

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import FalconConfig

        return FalconConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_kv_heads=self.kv_heads or self.heads,
            new_decoder_architecture=self.new_decoder_architecture,
            multi_query=True,
            parallel_attn=True,
            alibi=False,
            rope_theta=self.rope_theta,
            bias=False,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            max_position_embeddings=self.max_length,
            initializer_range=self.initializer_range,
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
