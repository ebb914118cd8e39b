"""Byte-level byte-pair encoding: every text can be encoded, and decodes back to itself."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from engine.part import Part, recipe
from stages.initialize.tokenizers.special import BOS, EOS, PAD

if TYPE_CHECKING:
    import tokenizers


class Bpe(Part):
    """Byte-level byte-pair encoding, as GPT-2 and Falcon use it."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = recipe(
        4096, "Number of tokens at most (little text gives fewer), the 256 bytes and the special tokens included.", ge=258, le=1_000_000
    )
    begin_token: bool = recipe(False, "Whether there is a begin-of-sequence token, as the mask `delimited` wants one.")
    tasks: tuple[str, ...] = recipe((), "Tasks whose train split the tokenizer is trained on; empty: all tasks of the spec.")

    def train(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """A tokenizer trained on TEXTS; the same texts in the same order give the same tokenizer."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[EOS, PAD, BOS] if self.begin_token else [EOS, PAD],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer
