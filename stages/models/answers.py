"""Log-probabilities of answers from a model's logits."""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy


def answer_logps(logits: torch.Tensor, targets: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Log-probability (nats) of each row's supervised tokens, summed, float32 [rows].

    LOGITS are those that predict the supervised tokens, float32 [tokens, vocabulary], TARGETS these tokens, row by row. COUNTS are the
    supervised tokens of each row; without rows the result is [0].
    """
    each = -cross_entropy(logits, targets, reduction="none")
    # Not by scattered additions, whose order differs between runs on a GPU.
    return torch.stack([part.sum() for part in each.split(list(counts))]) if counts else each
