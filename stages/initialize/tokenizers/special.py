"""Special tokens of the tokenizers trained here."""

EOS = "<|endoftext|>"
"""End-of-sequence token, at the end of every completion."""
PAD = "<|pad|>"
"""Padding token; distinct from the end-of-sequence token, which the model must learn to generate."""
