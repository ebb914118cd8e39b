"""Measures the memory of a training."""

import contextlib
import ctypes
import resource
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

DECIDES_NO_BYTES = True
"""Not part of a step's identity: the memory of a training does not affect results."""


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes: device memory, or main memory for the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "linux":
        # Not ru_maxrss, which across exec keeps the peak of the parent process.
        return _status("VmHWM")
    # macOS reports bytes: getrusage(2).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def held_memory(device: torch.device) -> int:
    """Current memory of this process in bytes; the peak so far if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _status("VmRSS") if sys.platform == "linux" else peak_memory(device)


def forget_peak(device: torch.device) -> None:
    """Reset the peak, if the device is the CPU: loading maps the model's file, whose pages are reclaimable.

    On a GPU loading counts, because memory for it is required.
    """
    if device.type == "cpu" and sys.platform == "linux":
        # proc(5): 5 resets the high water mark to the current value. If not permitted, the peak includes loading.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


class Meter:
    """Peak memory of a training alone: model, gradients, states and activations, comparable with the estimate.

    It excludes the initial memory of the process (interpreter, libraries) and freed memory that the allocator keeps: on a GPU torch counts
    allocations; in main memory a thread polls glibc's count of memory in use (mallinfo(3)).
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        """Start measuring, before the optimizer has states, with MODEL on DEVICE."""
        self._device = device
        self._held = sum(tensor.numel() * tensor.element_size() for tensor in {id(t): t for t in _tensors(model)}.values())
        self._before = self._peak = _in_use(device) or 0
        # Another allocator than glibc's would not count the model.
        self._knows = self._before >= self._held // 2 and bool(self._before)
        self._ended = threading.Event()
        if self._knows and device.type == "cpu":
            threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._ended.is_set():
            self._peak = max(self._peak, _in_use(self._device) or 0)
            time.sleep(_BETWEEN_LOOKS)

    def end(self) -> int | None:
        """Stop measuring; returns the peak in bytes, None if the system does not report it."""
        self._ended.set()
        if not self._knows:
            return None
        peak = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else self._peak
        return int(peak - self._before + self._held)


_BETWEEN_LOOKS = 0.005
"""Seconds between polls, which take microseconds."""


def _tensors(model: Any) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


class _Counts(ctypes.Structure):
    """`struct mallinfo2` of mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]


def _in_use(device: torch.device) -> int | None:
    """Bytes in use: of tensors on a GPU, of all allocations in main memory; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    counts = _mallinfo()
    if counts is None:
        return None
    found = counts()
    return int(found.uordblks + found.hblkhd)


@cache
def _mallinfo() -> Any:
    try:
        counts = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None  # glibc before 2.33, or another C library
    counts.restype = _Counts
    return counts


def _status(name: str) -> int:
    """A size in /proc/self/status (proc(5)), in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
