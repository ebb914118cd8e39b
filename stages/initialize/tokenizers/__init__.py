"""Trainable tokenizers; one member per file."""

from typing import Annotated

from engine.core.part import named
from stages.initialize.tokenizers.bpe import Bpe

Tokenizer = Annotated[Bpe, named]
