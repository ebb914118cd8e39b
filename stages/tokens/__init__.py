"""Tokenizers, token ids, and token files."""
