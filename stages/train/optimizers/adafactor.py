"""Adafactor (Shazeer and Stern, 2018, arXiv:1804.04235) of torch: the second moment of a matrix is factored into a row and a column."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.train.optimizers.base import OptimizerPart, groups

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


class Adafactor(OptimizerPart):
    """torch's Adafactor; the learning rate is relative to each weight's own size."""

    kind: Literal["adafactor"] = "adafactor"
    beta2_decay: float = recipe(-0.8, "The decay rate of the second moment at step t is `1 - t ** beta2_decay`.", le=0)
    clip: float = recipe(1.0, "Maximum root mean square of an update (clipping).", ge=1)
    has_betas: ClassVar[bool] = False
    state_bytes: ClassVar[float] = 0.0

    def make(
        self, weights: Iterable[tuple[str, "Parameter"]], learning_rate: float, betas: tuple[float, float], weight_decay: float
    ) -> "Optimizer":
        """torch's optimizer; BETAS are unused, because its decay rate depends on the step."""
        import torch

        return torch.optim.Adafactor(groups(weights, weight_decay), lr=learning_rate, beta2_decay=self.beta2_decay, d=self.clip)
