"""Out-of-memory errors: what they look like, and what to free before a smaller batch is tried."""

import gc

import torch

DECIDES_NO_BYTES = True
"""Not part of a step's identity: batches that are smaller give the same results within rounding."""

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
