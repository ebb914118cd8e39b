"""GPT-2 (Radford et al., 2019): learned positions, layer norm before each block."""

from typing import TYPE_CHECKING, Literal

from stages.initialize.architectures.sizes import Sizes

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Gpt2(Sizes):
    """GPT-2's decoder: learned positions, layer norm before each block."""

    kind: Literal["gpt2"] = "gpt2"

    def config(self, vocab_size: int, eos: int, pad: int) -> "PretrainedConfig":
        """The transformers configuration of this architecture for a tokenizer of VOCAB_SIZE tokens."""
        from transformers import GPT2Config

        return GPT2Config(
            vocab_size=vocab_size,
            n_embd=self.hidden_size,
            n_layer=self.layers,
            n_head=self.heads,
            n_positions=self.max_length,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            initializer_range=self.initializer_range,
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
