"""Bloom (Le Scao et al., 2022, arXiv:2211.05100): ALiBi positions, layer norm after the embeddings."""

from typing import TYPE_CHECKING, Literal

from stages.initialize.architectures.sizes import Sizes

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Bloom(Sizes):
    """Bloom's decoder: ALiBi positions, layer norm after the embeddings."""

    kind: Literal["bloom"] = "bloom"

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import BloomConfig

        return BloomConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            n_layer=self.layers,
            n_head=self.heads,
            # Not used by the model, whose ALiBi has no limit; as in the published configurations, the intended context length.
            seq_length=self.max_length,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            initializer_range=self.initializer_range,
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
