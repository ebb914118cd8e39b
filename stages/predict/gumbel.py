"""The Gumbel-max trick: the argmax of logits with Gumbel noise is a sample from their softmax (arXiv:1411.0030)."""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from stages.process.hashing import seed_from


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise from one CPU generator per row, so a row's draws do not depend on batch or device."""

    def __init__(self, seed: int, rows: Sequence[str]) -> None:
        self._generators = [torch.Generator().manual_seed(seed_from("sample", seed, row) % 2**63) for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """SCORES [rows, vocabulary] plus Gumbel noise."""
        # Uniform in [0, 1) with 53 bits: float32 would be 0 too often, and its noise minus infinity.
        uniform = torch.stack([torch.rand(scores.shape[-1], generator=one, dtype=torch.float64) for one in self._generators])
        return scores + -torch.log(-torch.log(uniform)).to(scores.device, scores.dtype)
