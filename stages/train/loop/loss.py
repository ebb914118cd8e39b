"""The training loss, which does not depend on the division of a global batch."""

import torch
from torch.nn.functional import cross_entropy


def token_loss(logits: torch.Tensor, targets: torch.Tensor, supervised_tokens: int) -> torch.Tensor:
    """Cross entropy (nats) summed over the supervised tokens of a micro-batch, divided by their number in the GLOBAL batch.

    The gradients of micro-batches then sum to the same gradient for any division; a mean over micro-batches would give tokens in short ones
    more weight (https://huggingface.co/blog/gradient_accumulation). LOGITS are those that predict the supervised tokens, float32 [tokens,
    vocabulary], TARGETS these tokens (stages.models.projection).
    """
    return cross_entropy(logits, targets, reduction="sum") / supervised_tokens
