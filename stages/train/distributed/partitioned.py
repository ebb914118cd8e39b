"""Optimizer steps on processes that partition optimizer states, gradients and weights: DeepSpeed's ZeRO."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from stages.train.distributed.processes import State, add_up, in_main_memory, trained
from stages.train.loop.division import Share
from stages.train.zero import Zero, deepspeed_config


class Partitioned:
    """Wraps DeepSpeed's engine: marks gradient accumulation boundaries, and collects whole weights and states by name.

    DeepSpeed's checkpoints are pickles for a fixed number of processes; whole tensors by name can be loaded by any number.
    """

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, max_grad_norm: float, share: Share, zero: Zero) -> None:
        import deepspeed

        self.model, self.share = model, share
        self._trained = trained(model)
        config = deepspeed_config(zero, max_grad_norm)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self._zero = self._engine.optimizer
        self._stage = zero.stage
        self._device = self._engine.device
        self._prime()

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """The model's outputs."""
        return self._engine(**inputs)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Accumulate the gradient of LOSS; LAST: the final one of this step."""
        self._engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over processes; the loss is a summand.
        self._engine.backward(loss * self.share.count, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Update the weights; returns the norm of the whole gradient before clipping."""
        for group in self._zero.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def clear(self) -> None:
        """Not supported: part of the gradient may have been exchanged already, so the step must restart from a checkpoint."""
        raise NotImplementedError("a step of several processes can only restart from a checkpoint")

    def sums(self, values: list[float]) -> list[float]:
        """VALUES summed over all processes."""
        return add_up(values, self.share, self._device)

    def _flat(self) -> list[torch.nn.Parameter]:
        """This process's partitions of the weights, as the wrapped optimizer sees them."""
        return list(self._zero.fp32_partitioned_groups_flat if self._stage == 3 else self._zero.single_partition_of_fp32_groups)

    def _prime(self) -> None:
        """Make the optimizer create its states by a step with learning rate zero and gradients zero.

        Otherwise DeepSpeed 0.19 links only the states of the first parameter group, and those of the others are inaccessible.
        """
        base = self._zero.optimizer
        with _rate_of_zero(base):
            for number, flat in enumerate(self._flat()):
                with self._at_hand(number):
                    lent = flat.grad is None
                    flat.grad = torch.zeros_like(flat) if lent else flat.grad
                    self._zero._optimizer_step(number)
                    if lent:
                        flat.grad = None
        for flat in self._flat():
            self._reset_counters(base.state[flat])
        self._link()

    @contextmanager
    def _at_hand(self, number: int) -> Iterator[None]:
        """Context in which a group of weights and states offloaded to disk is in memory; DeepSpeed never offloads those below 1 MB."""
        if self._stage < 3 or not self._zero._swappable_optimizer_subgroup(number):
            yield
            return
        self._zero._optimizer_states_and_gradient_swap_in(number)
        yield
        self._zero._optimizer_states_and_gradient_swap_out(number)

    @staticmethod
    def _reset_counters(state: dict[str, Any]) -> None:
        for value in state.values():
            if isinstance(value, torch.Tensor) and not value.ndim:
                value.zero_()

    def _link(self) -> None:
        if self._stage < 3:
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained weights by name; collective, returned on the first process."""
        return self._whole(None)

    def states(self) -> State:
        """The optimizer's states; collective, returned on the first process."""
        first = self._zero.optimizer.state[self._flat()[0]]
        found: State = {name: {} for name in self._trained} if self.share.index == 0 else {}
        for key, value in first.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                for name, whole in self._whole(key).items():
                    found[name][key] = whole
            else:
                for state in found.values():
                    state[key] = in_main_memory(value)
        return found

    def _whole(self, key: str | None) -> dict[str, torch.Tensor]:
        """One state of all weights by name (KEY None: the weights), gathered one tensor at a time to limit memory."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        found = {}
        for name, weight in self._trained.items():
            whole = safe_get_full_optimizer_state(weight, key) if key else safe_get_full_fp32_param(weight)
            if self.share.index == 0:
                found[name] = in_main_memory(whole)
        return found

    def load(self, states: State) -> None:
        """Load the optimizer's STATES, which are whole on every process."""
        for name, state in states.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.ndim:
                    self._set(self._trained[name], value, key)
        counters = {key: value for key, value in next(iter(states.values())).items() if not getattr(value, "ndim", 0)}
        for flat in self._flat():
            self._zero.optimizer.state[flat].update({key: in_main_memory(value) for key, value in counters.items()})

    def _set(self, weight: Any, whole: torch.Tensor, key: str) -> None:
        """Write this process's partition of the state KEY of a weight."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if self._stage < 3:
            # None: no partition of this weight is here.
            if weight._hp_mapping is not None:
                safe_set_full_optimizer_state(weight, whole, key)
            return
        # DeepSpeed's setter of whole tensors fails if the last process's partition is padded.
        size = weight.ds_tensor.numel()
        padded = torch.zeros(size * self.share.count, dtype=whole.dtype)
        padded[: whole.numel()] = whole.flatten()
        safe_set_local_optimizer_state(weight, padded[size * self.share.index : size * (self.share.index + 1)], key)


@contextmanager
def _rate_of_zero(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
