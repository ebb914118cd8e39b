"""A process that ends when the one that started it does: a killed build or training must leave no second writer behind."""

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

PARENT = "ADAPTERBUILD_PARENT"
"""The variable in which a process names itself to a child; each link of the chain names itself anew."""


def named() -> str:
    """What this process says of itself to a child: its id, when it began, and where; ids are given again, and are another host's there."""
    return " ".join([str(os.getpid()), _began(os.getpid()) or "?", _here()])


def die_with_parent(number: signal.Signals) -> None:
    """Get the signal NUMBER when the parent dies, however it does; end at once where it is dead already (Linux: prctl(2)).

    Between this process and the one that has named itself there may be others, such as `srun` or a shell: then that one must live.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
    # Not for this process's own children: those that it does not name itself to have shells or schedulers between.
    name = os.environ.pop(PARENT, "")
    if _is_dead(name):
        # It died before this process could ask for the signal, which now nobody sends.
        what = f"process {name.split()[0]}, which started this one, has ended, and so does this one: nobody would record its result"
        print(f"error: {what}\n  hint: start the build again; where none was ended, unset {PARENT}", file=sys.stderr, flush=True)
        os._exit(1)


def _is_dead(name: str) -> bool:
    """Whether the process that NAME was said of is known to be dead; of other hosts and containers nothing is known."""
    pid, began, here = (*name.split(" ", 2), "", "", "")[:3]
    if pid == str(os.getppid()) or not pid.isdecimal() or here != _here():
        return False
    return _began(int(pid)) != began


def _began(pid: int) -> str | None:
    """When a process began, in ticks since the system did (proc(5)); None for one that has ended, `?` where the system does not tell."""
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "?"
    try:
        # The name of the program, in parentheses, may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def _here() -> str:
    """The host, and the container inside it, within which ids of processes are distinct."""
    try:
        inside = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path that could be followed
    except OSError:
        inside = ""
    return f"{socket.gethostname()} {inside}".strip()
