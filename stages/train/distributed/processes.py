"""Optimizer steps on one process, or on several with replicas of the model that sum their gradients."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import distributed

from stages.train.loop.division import Share

State = dict[str, dict[str, Any]]
"""Optimizer states: by weight, by name of the state; tensors or numbers."""


class Processes(Protocol):
    """The training loop's interface: forward, backward and step, wherever weights, gradients and states are stored."""

    share: Share
    model: Any

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """The model's outputs."""

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Accumulate the gradient of LOSS; LAST: the final one of this step."""

    def step(self, learning_rate: float) -> float:
        """Update the weights; returns the norm of the whole gradient before clipping."""

    def clear(self) -> None:
        """Reset the gradient to the beginning of the step."""

    def sums(self, values: list[float]) -> list[float]:
        """VALUES summed over all processes."""

    def weights(self) -> dict[str, torch.Tensor]:
        """The whole trained weights by name, in main memory."""

    def states(self) -> State:
        """The whole optimizer states, in main memory."""

    def load(self, states: State) -> None:
        """Load the optimizer's STATES."""


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """The trainable weights of MODEL by name, tied ones once."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def in_main_memory(value: Any) -> Any:
    """A copy of a tensor in main memory, without shared storage; other values unchanged."""
    return value.detach().to("cpu", copy=True).contiguous() if isinstance(value, torch.Tensor) else value


class Replicated:
    """Data parallelism: a replica on each process, whose gradients are summed before the step."""

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, max_grad_norm: float, share: Share, scaled: bool = False) -> None:
        self.model, self.share = model, share
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=scaled)
        self._optimizer, self._max_grad_norm = optimizer, max_grad_norm
        self._trained = trained(model)

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """The model's outputs."""
        return self.model(**inputs)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Accumulate the gradient of LOSS."""
        self.scaler.scale(loss).backward()

    def step(self, learning_rate: float) -> float:
        """Update the weights; returns the norm of the whole gradient before clipping."""
        if self.share.count > 1:
            self._add_up()
        self.scaler.unscale_(self._optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained.values(), self._max_grad_norm))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.step(self._optimizer)
        self.scaler.update()
        self._optimizer.zero_grad()
        # The scaler skips a step whose gradients overflow float16, and then decreases the scale.
        return 0.0 if self.scaler.is_enabled() and not math.isfinite(norm) else norm

    def _add_up(self) -> None:
        """Sum the gradients of all processes, in one all-reduce per dtype."""
        for weight in self._trained.values():
            # A process with an empty share may lack gradients that the others have.
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
        """Reset the gradient."""
        self._optimizer.zero_grad()

    def sums(self, values: list[float]) -> list[float]:
        """VALUES summed over all processes."""
        return add_up(values, self.share, next(self.model.parameters()).device)

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights by name."""
        return {name: in_main_memory(weight) for name, weight in self._trained.items()}

    def states(self) -> State:
        """The optimizer's states."""
        found = {name: self._optimizer.state.get(weight, {}) for name, weight in self._trained.items()}
        return {name: {key: in_main_memory(value) for key, value in state.items()} for name, state in found.items() if state}

    def load(self, states: State) -> None:
        """Load the optimizer's STATES."""
        for name, state in states.items():
            weight = self._trained[name]
            # Step counters stay in main memory, where the optimizer created them.
            self._optimizer.state[weight] = {
                key: value.to(weight.device) if isinstance(value, torch.Tensor) and value.ndim else value for key, value in state.items()
            }


def put(weights: Mapping[str, torch.Tensor], model: Any) -> None:
    """Copy trained WEIGHTS into MODEL."""
    with torch.no_grad():
        for name, weight in trained(model).items():
            weight.copy_(weights[name])


def add_up(values: list[float], share: Share, device: torch.device) -> list[float]:
    """VALUES summed over all processes, in double precision."""
    if share.count == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return [float(value) for value in total]
