"""Names with a meaning of their own."""

BASE = "base"
"""The name in `evaluation.compare` of the model that an experiment starts from."""
