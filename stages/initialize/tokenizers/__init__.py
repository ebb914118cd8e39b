"""Tokenizers that can be trained; one member a file."""

from stages.initialize.tokenizers.bpe import Bpe

Tokenizer = Bpe
