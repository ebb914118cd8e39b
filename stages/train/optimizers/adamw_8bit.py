"""AdamW with states of 8 bits (Dettmers et al., 2021, arXiv:2110.02861), of bitsandbytes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe, resource
from stages.train.optimizers.base import OptimizerPart, groups

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


class AdamW8bit(OptimizerPart):
    """AdamW whose moments are kept in 8 bits, in blocks of 256; weights of fewer than 4096 numbers keep float32 moments."""

    kind: Literal["adamw_8bit"] = "adamw_8bit"
    eps: float = recipe(1e-8, "Added to the root of the second moment.", gt=0)
    paged: bool = resource(False, "Let the states move to main memory where the device's is full.")
    has_betas: ClassVar[bool] = True
    # Two moments of a byte, and a float32 constant of each block of 256 for each.
    state_bytes: ClassVar[float] = 2 * (1 + 4 / 256)
    environment: ClassVar[tuple[str, ...]] = ("bitsandbytes",)

    def make(
        self, weights: Iterable[tuple[str, "Parameter"]], learning_rate: float, betas: tuple[float, float], weight_decay: float
    ) -> "Optimizer":
        """bitsandbytes' optimizer."""
        import bitsandbytes
        import torch

        paged = self.paged and torch.cuda.is_available()
        return bitsandbytes.optim.AdamW8bit(
            groups(weights, weight_decay), lr=learning_rate, betas=betas, eps=self.eps, weight_decay=weight_decay, is_paged=paged
        )
