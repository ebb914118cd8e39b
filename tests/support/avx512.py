"""A processor that says it has AVX-512 with BF16, or that it has not: what bitsandbytes is told, whatever this machine has."""

import ctypes
from typing import Any

_ASKED = "has_avx512bf16_cpu"


def force(answer: bool) -> None:
    """Let bitsandbytes' native library give ANSWER, from its import on; to be called before bitsandbytes is imported.

    The library itself is asked at its import, when its CPU kernels are registered, and by each of its layers.
    """
    original = ctypes.CDLL.__getattr__

    def getattr_or_answer(self: ctypes.CDLL, name: str) -> Any:
        return (lambda: answer) if name == _ASKED else original(self, name)

    ctypes.CDLL.__getattr__ = getattr_or_answer  # type: ignore[method-assign]
