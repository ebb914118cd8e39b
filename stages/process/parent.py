"""Ends a process when its parent ends, so that a killed build or training leaves no second writer behind."""

import ctypes
import os
import signal
import socket
import sys
import time
from math import inf
from pathlib import Path

DECIDES_NO_BYTES = True
"""Not part of a step's identity: what ends its process early does not affect results."""


PARENT = "ADAPTERBUILD_PARENT"
"""Environment variable with the parent's identity (see `named`); each process in the chain sets its own."""


def named() -> str:
    """The identity of this process: id, start time and host, since ids are reused and are only unique on one host."""
    return " ".join([str(os.getpid()), _began(os.getpid()) or "?", _here()])


def die_with_parent(number: signal.Signals) -> None:
    """Receive the signal NUMBER when the parent dies; exit at once if the process in PARENT is already dead (Linux: prctl(2)).

    There may be processes in between, such as `srun` or a shell; the named process must still be alive.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
    # Removed for this process's children: children started without it may have shells or schedulers in between.
    name = os.environ.pop(PARENT, "")
    if _is_dead(name):
        # The parent died before prctl took effect, so no signal will come.
        what = f"process {name.split()[0]}, which started this one, has ended, and so does this one: nobody would record its result"
        print(f"error: {what}\n  hint: start the build again; where none was ended, unset {PARENT}", file=sys.stderr, flush=True)
        os._exit(1)


def age(pid: int) -> float | None:
    """Seconds since the process PID began; None if it has ended, infinite if the system does not report it."""
    began = _began(pid)
    if began is None or not began.isdecimal():
        return None if began is None else inf
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(began) / os.sysconf("SC_CLK_TCK")


def _is_dead(name: str) -> bool:
    """Whether the process with the identity NAME is known to be dead; unknown for other hosts and containers."""
    pid, began, here = (*name.split(" ", 2), "", "", "")[:3]
    if pid == str(os.getppid()) or not pid.isdecimal() or here != _here():
        return False
    return _began(int(pid)) != began


def _began(pid: int) -> str | None:
    """Start time of a process, in clock ticks since boot (proc(5)); None if it has exited, `?` if the system does not report it."""
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "?"
    try:
        # The program's name, in parentheses, may contain any character.
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def _here() -> str:
    """Host name and PID namespace, within which process ids are unique."""
    try:
        inside = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path that could be followed
    except OSError:
        inside = ""
    return f"{socket.gethostname()} {inside}".strip()
