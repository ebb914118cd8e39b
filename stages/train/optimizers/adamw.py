"""AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) of torch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from engine.core.part import recipe
from stages.train.optimizers.base import OptimizerPart, groups

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


class AdamW(OptimizerPart):
    """torch's fused AdamW."""

    kind: Literal["adamw"] = "adamw"
    eps: float = recipe(1e-8, "Epsilon, added to the root of the second moment.", gt=0)

    def make(
        self, weights: Iterable[tuple[str, "Parameter"]], learning_rate: float, betas: tuple[float, float], weight_decay: float
    ) -> "Optimizer":
        """torch's fused AdamW, available on CPU and GPU."""
        import torch

        return torch.optim.AdamW(groups(weights, weight_decay), lr=learning_rate, betas=betas, eps=self.eps, fused=True)
