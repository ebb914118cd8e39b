"""The loss of a training: it does not depend on how a global batch is split."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy


def token_loss(outputs: Any, labels: torch.Tensor, supervised_tokens: int) -> torch.Tensor:
    """Cross entropy, summed over the supervised tokens of a micro-batch and divided by their number in the GLOBAL batch.

    The gradients of a global batch's micro-batches then add up to the same whatever the split; a mean over micro-batches would weigh
    tokens in short ones more (https://huggingface.co/blog/gradient_accumulation). The logits
    at position i - 1 are to give the label at position i.
    """
    # Prompt tuning's virtual tokens stand before the row.
    logits = outputs.logits[:, -labels.shape[1] :]
    logits, targets = logits[:, :-1], labels[:, 1:]
    supervised = targets >= 0
    # Only supervised positions: with completion masks most logits are not needed in the softmax.
    return cross_entropy(logits[supervised].float(), targets[supervised], reduction="sum") / supervised_tokens
