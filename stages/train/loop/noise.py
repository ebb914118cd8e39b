"""NEFTune (Jain et al., 2023, arXiv:2310.05914): noise on the embeddings while training, which belongs to rows as dropout does."""

from typing import Any

import torch

from stages.train.loop.dropout import RowKeys, noise_of

_LAYER = -1
"""A number that no layer's dropout has."""


def add_noise(model: Any, alpha: float, keys: RowKeys, lengths: torch.Tensor) -> None:
    """Add evenly distributed noise of at most ALPHA / sqrt(tokens of the row * width) to what MODEL's embeddings give, while it trains.

    LENGTHS: tokens of each row of the training, by its position. A row's own length counts, not that of the batch it is padded to, so that
    the same row gets the same noise in any micro-batch.
    """

    def disturb(module: torch.nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return embedded
        rows = keys.positions[:, None] if keys.tokens is None and keys.positions is not None else keys.tokens >> 24  # type: ignore[operator]
        size = alpha / torch.sqrt(lengths.to(embedded.device)[rows] * embedded.shape[-1])
        noise = noise_of(keys, embedded.shape[1], embedded.shape[-1], _LAYER, embedded.device)
        return embedded + (noise * size[..., None]).to(embedded.dtype)

    model.get_input_embeddings().register_forward_hook(disturb)
