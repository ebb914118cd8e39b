"""torchrun as a child of the step: it dies with it, and says nothing of its own about processes that have said why they end."""

import logging
import os
import signal
import sys

from stages.common.parent import PARENT, die_with_parent


def main(arguments: list[str]) -> int:
    """Run torchrun with ARGUMENTS; 1 where a process has failed."""
    # A second training must never write beside the first: no time to save.
    die_with_parent(signal.SIGKILL)
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
