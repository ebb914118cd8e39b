"""NEFTune (Jain et al., 2023, arXiv:2310.05914): noise on the embeddings during training, drawn per row like dropout."""

from typing import Any

import torch

from stages.train.loop.dropout import RowKeys, noise_of

_LAYER = -1
"""A layer number that no dropout uses."""


def add_noise(model: Any, alpha: float, keys: RowKeys, lengths: torch.Tensor) -> None:
    """Add uniform noise of magnitude ALPHA / sqrt(tokens of the row * width) to MODEL's embeddings during training.

    LENGTHS [rows] are the tokens of each row of the training. The row's own length is used, not the padded length, so that a row gets the
    same noise in any micro-batch.
    """

    def disturb(module: torch.nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return embedded
        rows = keys.positions[:, None] if keys.tokens is None and keys.positions is not None else keys.tokens >> 24  # type: ignore[operator]
        size = alpha / torch.sqrt(lengths.to(embedded.device)[rows] * embedded.shape[-1])
        noise = noise_of(keys, embedded.shape[1], embedded.shape[-1], _LAYER, embedded.device)
        return embedded + (noise * size[..., None]).to(embedded.dtype)

    model.get_input_embeddings().register_forward_hook(disturb)
