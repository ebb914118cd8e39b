"""AdamW whose states are paged to main memory when device memory is full (Dettmers et al., 2023, arXiv:2305.14314), of bitsandbytes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.process.numerics import replace_approximations
from stages.train.optimizers.base import OptimizerPart, groups

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


class PagedAdamW(OptimizerPart):
    """AdamW with states paged to main memory; without a GPU, an ordinary AdamW."""

    kind: Literal["paged_adamw"] = "paged_adamw"
    eps: float = recipe(1e-8, "Epsilon, added to the root of the second moment.", gt=0)
    environment: ClassVar[tuple[str, ...]] = ("bitsandbytes",)

    def make(
        self, weights: Iterable[tuple[str, "Parameter"]], learning_rate: float, betas: tuple[float, float], weight_decay: float
    ) -> "Optimizer":
        """bitsandbytes' optimizer."""
        import bitsandbytes
        import torch

        replace_approximations()  # on CPUs bitsandbytes takes torch's square roots
        paged = torch.cuda.is_available()
        return bitsandbytes.optim.AdamW(
            groups(weights, weight_decay), lr=learning_rate, betas=betas, eps=self.eps, weight_decay=weight_decay, is_paged=paged
        )
