"""Ends a process when its parent ends, so that a killed build or training leaves no second writer behind."""

import ctypes
import os
import signal
import sys

PARENT = "ADAPTERBUILD_PARENT"
"""Environment variable with the parent's process id; each process in the chain sets its own."""


def die_with_parent(number: signal.Signals) -> None:
    """Receive the signal NUMBER when the parent dies; exit at once if it is already dead (Linux: prctl(2))."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
    here = str(os.getppid())
    # Removed for this process's children: children started without it may have shells or schedulers in between.
    if os.environ.pop(PARENT, here) != here:
        # The parent died before prctl took effect, so no signal will come.
        os._exit(1)
