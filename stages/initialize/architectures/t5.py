"""T5 (Raffel et al., 2019, arXiv:1910.10683), version 1.1: an encoder reads the prompt, a decoder writes the completion."""

from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.initialize.architectures.sizes import Shape

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class T5(Shape):
    """T5's encoder and decoder, with the gated feed-forward layer of version 1.1 and FLAN-T5, and relative positions."""

    encoder_decoder: ClassVar[bool] = True
    kind: Literal["t5"] = "t5"
    intermediate_size: int | None = recipe(
        None, "Width of the feed-forward layer; if unset, 8/3 of hidden_size, rounded up to a multiple of 8.", gt=0
    )
    initializer_factor: float = recipe(1.0, "Factor on the standard deviations of T5's initialization.", gt=0)

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import T5Config

        return T5Config(
            vocab_size=vocab_size,
            d_model=self.hidden_size,
            d_kv=self.hidden_size // self.heads,
            d_ff=self.intermediate_size or -(-self.hidden_size * 8 // 3 // 8) * 8,
            num_layers=self.layers,
            num_decoder_layers=self.layers,
            num_heads=self.heads,
            # Not used by the model, whose relative positions have no limit; as in published configurations, the intended context length.
            n_positions=self.max_length,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            classifier_dropout=0.0,
            initializer_factor=self.initializer_factor,
            # Version 1.1 has an untied output layer, but with T5's initialization its initial loss is far above chance.
            tie_word_embeddings=True,
            pad_token_id=pad,
            eos_token_id=eos,
            decoder_start_token_id=pad,
        )
