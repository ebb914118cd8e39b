"""The sizes common to all architectures."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from engine.core.part import Part, recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def refuse_odd_rotary(hidden_size: int, heads: int) -> None:
    """Raise ValueError if the head dimension is odd: rotary positions rotate pairs of features."""
    if hidden_size // heads % 2:
        raise ValueError(f"rotary positions need an even head dimension, got {hidden_size} / {heads} = {hidden_size // heads}")


def refuse_uneven_groups(heads: int, kv_heads: int | None) -> None:
    """Raise ValueError unless HEADS is a multiple of KV_HEADS (grouped-query attention, Ainslie et al., 2023, arXiv:2305.13245)."""
    if kv_heads and heads % kv_heads:
        raise ValueError(f"heads ({heads}) must be divisible by kv_heads ({kv_heads})")


class Shape(Part):
    """Width, depth and heads of a model."""

    encoder_decoder: ClassVar[bool] = False
    """Whether the model is an encoder-decoder."""

    hidden_size: int = recipe(128, "Width of the residual stream.", gt=0)
    layers: int = recipe(4, "Number of decoder layers.", gt=0)
    heads: int = recipe(4, "Number of attention heads.", gt=0)
    max_length: int = recipe(512, "Context length, in tokens.", gt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size ({self.hidden_size}) must be divisible by heads ({self.heads})")
        return self

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        raise AssertionError(f"{type(self).__name__} gives no configuration")


class Sizes(Shape):
    """Sizes of a decoder whose random weights share one standard deviation."""

    initializer_range: float = recipe(0.02, "Standard deviation of the random weights.", gt=0)


class Grouped(Sizes):
    """Sizes of Llama and related architectures: rotary positions, SwiGLU, grouped-query attention."""

    intermediate_size: int | None = recipe(
        None, "Width of the feed-forward layer; if unset, 8/3 of hidden_size, rounded up to a multiple of 8.", gt=0
    )
    kv_heads: int | None = recipe(None, "Key/value heads; if unset, as many as heads.", gt=0)

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        refuse_odd_rotary(self.hidden_size, self.heads)
        refuse_uneven_groups(self.heads, self.kv_heads)
        return self

    def sizes(self, vocab_size: int, eos: int, pad: int) -> dict[str, Any]:
        """The sizes under the keys of transformers' configurations."""
        return {
            "vocab_size": vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size or -(-self.hidden_size * 8 // 3 // 8) * 8,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads or self.heads,
            "max_position_embeddings": self.max_length,
            "initializer_range": self.initializer_range,
            "tie_word_embeddings": True,
            "bos_token_id": eos,
            "eos_token_id": eos,
            "pad_token_id": pad,
        }
