"""A process that ends when the one that started it does: a killed build or training must leave no second writer behind."""

import ctypes
import os
import signal
import sys

PARENT = "ADAPTERBUILD_PARENT"
"""The variable in which a process tells a child its own id; each link of the chain names itself anew."""


def die_with_parent(number: signal.Signals) -> None:
    """Get the signal NUMBER when the parent dies, however it does; end at once where it is dead already (Linux: prctl(2))."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
    here = str(os.getppid())
    # Not for this process's own children: those that it does not name itself to have shells or schedulers between.
    if os.environ.pop(PARENT, here) != here:
        # It died before this process could ask for the signal, which now nobody sends.
        os._exit(1)
