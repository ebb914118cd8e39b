"""Log-probabilities of answers from a model's logits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy


def answer_logps(logits: Any, labels: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Log-probability (nats) of each row's supervised tokens, summed, float32 [rows].

    LOGITS are [lines, width or more, vocabulary], LABELS [lines, width], negative if not supervised; the logits at position i - 1 predict
    the label at position i. COUNTS are the supervised tokens of each row, in the order of the lines; without rows the result is [0].
    """
    # Prompt tuning's virtual tokens precede the row.
    logits = logits[:, -labels.shape[1] :]
    logits, targets = logits[:, :-1], labels[:, 1:]
    supervised = targets >= 0
    each = -cross_entropy(logits[supervised].float(), targets[supervised], reduction="none")
    # Not by scattered additions, whose order differs between runs on a GPU.
    return torch.stack([part.sum() for part in each.split(list(counts))]) if counts else each
