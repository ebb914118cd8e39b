"""What every optimizer answers: torch's optimizer for the weights that are trained."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from engine.core.part import Part

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


class OptimizerPart(Part):
    """How gradients become updates."""

    kind: str
    has_betas: ClassVar[bool] = True
    """Whether it keeps running means of the gradients with decay rates."""
    state_bytes: ClassVar[float] = 8.0
    """Bytes of its state for each trained number, beside a float32 copy of weights of half precision."""

    def make(
        self, weights: Iterable[tuple[str, "Parameter"]], learning_rate: float, betas: tuple[float, float], weight_decay: float
    ) -> "Optimizer":
        """torch's optimizer for the trained ones of WEIGHTS (name and weight, in the order of `model.named_parameters()`)."""
        raise AssertionError(f"{type(self).__name__} makes no optimizer")


def groups(weights: Iterable[tuple[str, "Parameter"]], weight_decay: float) -> list[dict[str, Any]]:
    """The trained ones of WEIGHTS in two groups: matrices are decayed, biases, norms and other vectors are not, as is usual."""
    trained = [weight for _, weight in weights if weight.requires_grad]
    matrices, vectors = [w for w in trained if w.ndim > 1], [w for w in trained if w.ndim <= 1]
    found = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in found if group["params"]]
