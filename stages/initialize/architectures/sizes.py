"""The sizes that all architectures have in common."""

from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from engine.part import Part, recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def refuse_odd_rotary(hidden_size: int, heads: int) -> None:
    """Raise ValueError where rotary positions, which turn pairs of numbers, do not fit the heads."""
    if hidden_size // heads % 2:
        raise ValueError(f"rotary positions need an even width of the heads, not {hidden_size} / {heads} = {hidden_size // heads}")


def refuse_uneven_groups(heads: int, kv_heads: int | None) -> None:
    """Raise ValueError where the heads cannot share KV_HEADS key/value heads evenly (Ainslie et al., 2023, arXiv:2305.13245)."""
    if kv_heads and heads % kv_heads:
        raise ValueError(f"heads {heads} is no multiple of kv_heads {kv_heads}")


class Sizes(Part):
    """Width, depth and heads of a decoder."""

    hidden_size: int = recipe(128, "Width of the residual stream.", gt=0)
    layers: int = recipe(4, "Number of decoder layers.", gt=0)
    heads: int = recipe(4, "Number of attention heads.", gt=0)
    max_length: int = recipe(512, "Longest sequence that the model is made for, in tokens.", gt=1)
    initializer_range: float = recipe(0.02, "Standard deviation of the random weights.", gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.heads}")
        return self

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        raise AssertionError(f"{type(self).__name__} gives no configuration")
