"""Disk space of a training's checkpoints."""

KEPT = 2
"""Maximum checkpoints on disk: those kept, and the one being written."""

_COPIES = 1 + 2
"""Copies of each trained weight in a checkpoint: the weight, and AdamW's two moments."""


def checkpoint_bytes(trained_bytes: int) -> int:
    """Bytes of all checkpoints for TRAINED_BYTES of weights, including the best weights."""
    return trained_bytes * (_COPIES * (KEPT + 1) + 1)
