"""GPT-NeoX (Black et al., 2022, arXiv:2204.06745): parallel attention and feed-forward, rotary positions on a part of each head."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from engine.core.part import recipe
from stages.initialize.architectures.sizes import Sizes

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class GptNeox(Sizes):
    """GPT-NeoX's and Pythia's decoder: parallel attention and feed-forward, rotary positions on a part of each head."""

    kind: Literal["gpt_neox"] = "gpt_neox"
    rotary_pct: float = recipe(0.25, "Share of each head's width that carries rotary positions.", gt=0, le=1)

    @model_validator(mode="after")
    def _rotary_fits(self) -> Self:
        turned = int(self.hidden_size // self.heads * self.rotary_pct)
        if turned < 2 or turned % 2:
            width = f"{self.rotary_pct:g} of {self.hidden_size // self.heads} is {turned}"
            raise ValueError(f"rotary positions need an even dimension above 0: rotary_pct {width}")
        return self

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import GPTNeoXConfig

        return GPTNeoXConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=4 * self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.max_length,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": self.rotary_pct},
            hidden_dropout=0.0,
            attention_dropout=0.0,
            classifier_dropout=0.0,
            initializer_range=self.initializer_range,
            tie_word_embeddings=True,
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
