"""torchrun as a child of the step: it dies with it, and says nothing of its own about processes that have said why they end."""

import ctypes
import logging
import os
import signal
import sys

PARENT = "ADAPTERBUILD_PARENT"
"""The variable in which a process tells its children its own id."""


def die_with_parent() -> None:
    """End at once when the parent does, however it does: a second training must never write beside the first (prctl(2))."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    here = str(os.getppid())
    if os.environ.get(PARENT, here) != here:
        # It died before this process could ask for the signal, which now nobody sends.
        os._exit(1)


def main(arguments: list[str]) -> int:
    """Run torchrun with ARGUMENTS; 1 where a process has failed."""
    die_with_parent()
    os.environ[PARENT] = str(os.getpid())
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    if "SLURM_NODEID" in os.environ and not any(argument.startswith("--node-rank") for argument in arguments):
        arguments = [f"--node-rank={os.environ['SLURM_NODEID']}", *arguments]
    try:
        torchrun(arguments)
    except ChildFailedError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
