"""AdamW with 8-bit states (Dettmers et al., 2021, arXiv:2110.02861), of bitsandbytes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe, resource
from stages.process.numerics import replace_approximations
from stages.train.optimizers.base import OptimizerPart, groups

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


class AdamW8bit(OptimizerPart):
    """AdamW with 8-bit moments in blocks of 256; weights with fewer than 4096 elements have float32 moments."""

    kind: Literal["adamw_8bit"] = "adamw_8bit"
    eps: float = recipe(1e-8, "Epsilon, added to the root of the second moment.", gt=0)
    paged: bool = resource(False, "Page the states to main memory when device memory is full.")
    has_betas: ClassVar[bool] = True
    # Two moments of one byte, and for each a float32 constant per block of 256.
    state_bytes: ClassVar[float] = 2 * (1 + 4 / 256)
    environment: ClassVar[tuple[str, ...]] = ("bitsandbytes",)

    def make(
        self, weights: Iterable[tuple[str, "Parameter"]], learning_rate: float, betas: tuple[float, float], weight_decay: float
    ) -> "Optimizer":
        """bitsandbytes' optimizer."""
        import bitsandbytes
        import torch

        replace_approximations()  # on CPUs bitsandbytes takes torch's square roots
        paged = self.paged and torch.cuda.is_available()
        return bitsandbytes.optim.AdamW8bit(
            groups(weights, weight_decay), lr=learning_rate, betas=betas, eps=self.eps, weight_decay=weight_decay, is_paged=paged
        )
