"""One optimizer step on one process, or on several that hold the whole model each and add up their gradients."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import distributed

from stages.train.loop.division import Share

State = dict[str, dict[str, Any]]
"""What an optimizer keeps: of each weight by name, values by name: tensors of the weight's shape or not, numbers."""


class Processes(Protocol):
    """What the training loop asks for: forward, backward and a step, wherever weights, gradients and states lie."""

    share: Share
    model: Any

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """The model's outputs."""

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of LOSS; LAST: nothing follows in this step."""

    def step(self, learning_rate: float) -> float:
        """Update the weights; the norm of the whole gradient before it was scaled down."""

    def clear(self) -> None:
        """Forget the gradient, as if this step had not begun."""

    def sums(self, values: list[float]) -> list[float]:
        """VALUES added up over all processes."""

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights by name, whole, in main memory."""

    def states(self) -> State:
        """What the optimizer keeps, whole, in main memory."""

    def load(self, states: State) -> None:
        """Go on from what an optimizer kept."""


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """The weights that learn, by name, tied ones once."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def in_main_memory(value: Any) -> Any:
    """A copy of a tensor in main memory that shares it with no other; other values as they are."""
    return value.detach().to("cpu", copy=True).contiguous() if isinstance(value, torch.Tensor) else value


class Replicated:
    """The whole model on each process; with more than one, gradients are added up before the step."""

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, max_grad_norm: float, share: Share, scaled: bool = False) -> None:
        self.model, self.share = model, share
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=scaled)
        self._optimizer, self._max_grad_norm = optimizer, max_grad_norm
        self._trained = trained(model)

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """The model's outputs."""
        return self.model(**inputs)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradient of LOSS."""
        self.scaler.scale(loss).backward()

    def step(self, learning_rate: float) -> float:
        """Update the weights; the norm of the whole gradient before it was scaled down."""
        if self.share.count > 1:
            self._add_up()
        self.scaler.unscale_(self._optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained.values(), self._max_grad_norm))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.step(self._optimizer)
        self.scaler.update()
        self._optimizer.zero_grad()
        # The scaler has left out a step whose gradients were too large for float16, and will scale less.
        return 0.0 if self.scaler.is_enabled() and not math.isfinite(norm) else norm

    def _add_up(self) -> None:
        """Sum the gradients of all processes, in one exchange for each type of number."""
        for weight in self._trained.values():
            # A process whose share was empty may lack what the others have.
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        kinds: dict[torch.dtype, list[torch.Tensor]] = {}
        for weight in self._trained.values():
            assert weight.grad is not None
            kinds.setdefault(weight.grad.dtype, []).append(weight.grad)
        for gradients in kinds.values():
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(flat)
            for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def clear(self) -> None:
        """Forget the gradient."""
        self._optimizer.zero_grad()

    def sums(self, values: list[float]) -> list[float]:
        """VALUES added up over all processes."""
        return add_up(values, self.share, next(self.model.parameters()).device)

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights by name."""
        return {name: in_main_memory(weight) for name, weight in self._trained.items()}

    def states(self) -> State:
        """What the optimizer keeps."""
        found = {name: self._optimizer.state.get(weight, {}) for name, weight in self._trained.items()}
        return {name: {key: in_main_memory(value) for key, value in state.items()} for name, state in found.items() if state}

    def load(self, states: State) -> None:
        """Go on from what an optimizer kept."""
        for name, state in states.items():
            weight = self._trained[name]
            # Counters stay in main memory, where the optimizer made them.
            self._optimizer.state[weight] = {
                key: value.to(weight.device) if isinstance(value, torch.Tensor) and value.ndim else value for key, value in state.items()
            }


def put(weights: Mapping[str, torch.Tensor], model: Any) -> None:
    """Copy trained WEIGHTS into MODEL."""
    with torch.no_grad():
        for name, weight in trained(model).items():
            weight.copy_(weights[name])


def add_up(values: list[float], share: Share, device: torch.device) -> list[float]:
    """VALUES added up over all processes, in double precision."""
    if share.count == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return [float(value) for value in total]
