"""AdamW (Loshchilov & Hutter, 2017, arXiv:1711.05101) over the weights that learn."""

from typing import Any

import torch

from stages.train import Parameters


def optimizer_of(model: Any, parameters: Parameters) -> torch.optim.Optimizer:
    """The optimizer of a training; matrices decay, vectors (biases, scales) do not."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in learning if weight.ndim > 1], "weight_decay": parameters.weight_decay},
        {"params": [weight for weight in learning if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    # DeepSpeed takes no empty group.
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=parameters.betas, fused=True)
