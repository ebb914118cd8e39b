"""The largest amount of memory that tensors take at one time, counted by the byte as a GPU's allocator counts it."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class Peak(TorchDispatchMode):
    """While it is entered, `peak` is the largest sum of the storages that any operation has read or made and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what goes into an operation and what comes out."""
        made = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._count, (args, kwargs, made))
        return made

    def forget(self) -> None:
        """Let the peak count from now on."""
        self.peak = self._now

    def _count(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self._gone, storage._cdata)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
        return tensor

    def _gone(self, key: int) -> None:
        self._now -= self._sizes.pop(key)
