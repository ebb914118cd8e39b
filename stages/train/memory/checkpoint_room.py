"""How much room the checkpoints of a training take on a disk."""

KEPT = 2
"""Checkpoints that are kept, while one more is written."""

_COPIES = 1 + 2
"""What a checkpoint holds of each trained weight: itself, and AdamW's two moments."""


def checkpoint_bytes(trained_bytes: int) -> int:
    """The room for all checkpoints of TRAINED_BYTES of weights, and for the best weights beside them."""
    return trained_bytes * (_COPIES * (KEPT + 1) + 1)
