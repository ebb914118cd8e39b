"""Tokenizers that can be trained; one member a file."""

from typing import Annotated

from engine.core.part import named
from stages.initialize.tokenizers.bpe import Bpe

Tokenizer = Annotated[Bpe, named]
