"""Memory of a training: how much it took, and what to do when it runs out."""

import contextlib
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
        # Not ru_maxrss: across exec it keeps what the process that started this one held.
        return _status("VmHWM")
    # macOS counts in bytes: getrusage(2).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def held_memory(device: torch.device) -> int:
    """What this process holds now, in bytes; the largest amount so far where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _status("VmRSS") if sys.platform == "linux" else peak_memory(device)


def forget_peak(device: torch.device) -> None:
    """Let the peak count from now on, where main memory is the device: to load a model maps its file, and pages of files are no need.

    On a GPU loading counts: what does not fit there fails.
    """
    if device.type == "cpu" and sys.platform == "linux":
        # proc(5): 5 sets the high water mark back to what is held now. Where that is not allowed the peak of loading stays.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    """A size in /proc/self/status (proc(5)), in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
