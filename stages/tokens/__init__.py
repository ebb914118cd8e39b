"""Tokenizers, token ids, and token files."""

FAST = "tokenizer.json"
"""The file of a tokenizer of the tokenizers library."""
