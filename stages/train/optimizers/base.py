"""The interface of optimizers."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from engine.core.part import Part

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


class OptimizerPart(Part):
    """An optimizer."""

    kind: str
    has_betas: ClassVar[bool] = True
    """Whether it uses `betas`."""
    state_bytes: ClassVar[float] = 8.0
    """Bytes of state per trained element, without the float32 copy of half-precision weights."""

    def make(
        self, weights: Iterable[tuple[str, "Parameter"]], learning_rate: float, betas: tuple[float, float], weight_decay: float
    ) -> "Optimizer":
        """torch's optimizer for the trainable ones of WEIGHTS (name and weight, in the order of `model.named_parameters()`)."""
        raise AssertionError(f"{type(self).__name__} implements no make")


def groups(weights: Iterable[tuple[str, "Parameter"]], weight_decay: float) -> list[dict[str, Any]]:
    """The trainable ones of WEIGHTS in two groups: matrices with weight decay; biases, norms and other vectors without, as is usual."""
    trained = [weight for _, weight in weights if weight.requires_grad]
    matrices, vectors = [w for w in trained if w.ndim > 1], [w for w in trained if w.ndim <= 1]
    found = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in found if group["params"]]
