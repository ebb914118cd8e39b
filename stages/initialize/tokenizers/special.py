"""The special tokens of every tokenizer that is trained here."""

EOS = "<|endoftext|>"
"""Ends every completion."""
PAD = "<|pad|>"
"""Fills rows up; it is no end: a model that learns to end needs an end token of its own."""
