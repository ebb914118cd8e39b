"""Measures the memory of a training, and detects out-of-memory errors."""

import contextlib
import gc
import resource
import sys
from pathlib import Path

import torch

_SAYINGS = ("out of memory", "can't allocate memory", "not enough memory")
"""Messages of torch's out-of-memory errors, which on the CPU are plain RuntimeErrors."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ERROR is an out-of-memory error of a device or of main memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(saying in str(error) for saying in _SAYINGS)


def release() -> None:
    """Free unreferenced memory, including torch's caches."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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


def _status(name: str) -> int:
    """A size in /proc/self/status (proc(5)), in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
