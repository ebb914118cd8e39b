"""The training loss, which does not depend on the division of a global batch."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy


def token_loss(outputs: Any, labels: torch.Tensor, supervised_tokens: int) -> torch.Tensor:
    """Cross entropy (nats) summed over the supervised tokens of a micro-batch, divided by their number in the GLOBAL batch.

    The gradients of micro-batches then sum to the same gradient for any division; a mean over micro-batches would give tokens in short ones
    more weight (https://huggingface.co/blog/gradient_accumulation). LABELS are [lines, width]; the logits at position i - 1 predict the
    label at position i.
    """
    logits, targets = supervised_logits(outputs, labels)
    return cross_entropy(logits, targets, reduction="sum") / supervised_tokens


def supervised_logits(outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that predict the supervised tokens, float32 [tokens, vocabulary], and the tokens, int64 [tokens], row by row.

    Only supervised positions: with completion masks, most logits are not needed.
    """
    # Prompt tuning's virtual tokens precede the row.
    logits = outputs.logits[:, -labels.shape[1] :]
    logits, targets = logits[:, :-1], labels[:, 1:]
    supervised = targets >= 0
    return logits[supervised].float(), targets[supervised]
