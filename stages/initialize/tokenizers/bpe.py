"""Byte-level byte-pair encoding, which encodes and decodes every text losslessly."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Part, recipe
from stages.initialize.tokenizers.special import EOS, PAD

if TYPE_CHECKING:
    import tokenizers


class Bpe(Part):
    """Byte-level byte-pair encoding, as in GPT-2 and Falcon."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = recipe(
        4096, "Maximum number of tokens (fewer for little text), including the 256 bytes and the special tokens.", ge=258, le=1_000_000
    )
    tasks: tuple[str, ...] = recipe((), "Tasks whose train split the tokenizer is trained on; if empty, all tasks of the spec.")

    bos: str | None = recipe(None, "Begin-of-sequence (BOS) token, such as `<s>`; if unset, there is none.", min_length=1)

    @property
    def special_tokens(self) -> list[str]:
        """The special tokens, in order of their ids."""
        return [EOS, PAD, *([self.bos] if self.bos else [])]

    @model_validator(mode="after")
    def _begin_is_no_end(self) -> Self:
        if self.bos in (EOS, PAD):
            raise PydanticCustomError(
                "bos", "bos must differ from the end-of-sequence and padding tokens, got '{bos}'", {"bos": self.bos, "at": ("bos",)}
            )
        if self.bos and self.vocab_size < 256 + len(self.special_tokens):
            raise PydanticCustomError("bos", "with a begin-of-sequence token, vocab_size must be at least 259", {"at": ("vocab_size",)})
        return self

    def train(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        """A tokenizer trained on TEXTS, deterministic in the texts and their order."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=self.special_tokens,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer
