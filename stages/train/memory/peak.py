"""Memory of a training: how much it took, and what to do when it runs out."""

import contextlib
import ctypes
import gc
import resource
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

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


class Meter:
    """The memory that a training itself needs at most: model, gradients, states and activations, which is what an estimate is about.

    What the process held besides when the meter began (the interpreter, libraries) is left out, and so is what the allocator keeps of
    freed memory: on a GPU torch counts by the byte; of main memory glibc says what is in use (mallinfo(3)), which a thread looks at.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        """Begin, before the optimizer has any states, with MODEL on DEVICE."""
        self._device = device
        self._held = sum(tensor.numel() * tensor.element_size() for tensor in {id(t): t for t in _tensors(model)}.values())
        self._before = self._peak = _in_use(device) or 0
        # Another allocator than glibc's, which would not know of the model.
        self._knows = self._before >= self._held // 2 and bool(self._before)
        self._ended = threading.Event()
        if self._knows and device.type == "cpu":
            threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._ended.is_set():
            self._peak = max(self._peak, _in_use(self._device) or 0)
            time.sleep(_BETWEEN_LOOKS)

    def end(self) -> int | None:
        """The most that the training has needed so far, in bytes; None where the system does not tell."""
        self._ended.set()
        if not self._knows:
            return None
        peak = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else self._peak
        return int(peak - self._before + self._held)


_BETWEEN_LOOKS = 0.005
"""Seconds; a look takes some millionths of one."""


def _tensors(model: Any) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


class _Counts(ctypes.Structure):
    """`struct mallinfo2` of mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]


def _in_use(device: torch.device) -> int | None:
    """Bytes in use now: on a GPU of its tensors, in main memory of all that was allocated and not freed; None where nobody tells."""
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
