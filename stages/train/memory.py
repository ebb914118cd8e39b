"""Memory of a training: how much it took, and what to do when it runs out."""

import gc
import resource
import sys
from pathlib import Path

import torch

_SAYINGS = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch says it, as a RuntimeError without a class of its own on the CPU."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ERROR means that a device, or main memory, is full."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(saying in str(error) for saying in _SAYINGS)


def release() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> int:
    """The largest amount of memory that this process has held, in bytes: of the device, or main memory where that is the device."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "linux":
        return _high_water_mark()
    # macOS counts in bytes: getrusage(2).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _high_water_mark() -> int:
    """VmHWM of proc(5), in bytes. Linux's ru_maxrss would not do: across exec it keeps what the process that started this one held."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
