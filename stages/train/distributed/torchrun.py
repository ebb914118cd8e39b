"""torchrun as a child of the step: it dies with the step, and does not report processes that have reported their error themselves."""

import logging
import os
import signal
import sys
from pathlib import Path

from engine.core.errors import UserError
from stages.process.parent import PARENT, die_with_parent, named

DECIDES_NO_BYTES = True
"""Not part of a step's identity: processes and their supervision do not affect results."""


def main(arguments: list[str]) -> int:
    """Run torchrun with ARGUMENTS; returns 1 if a process failed."""
    # Killed at once, without saving: a second training must never write at the same time.
    die_with_parent(signal.SIGKILL)
    os.environ[PARENT] = named()
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    from torch.distributed import DistNetworkError, DistStoreError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    if "SLURM_NODEID" in os.environ and not any(argument.startswith("--node-rank") for argument in arguments):
        arguments = [f"--node-rank={os.environ['SLURM_NODEID']}", *arguments]
    try:
        torchrun(arguments)
    except ChildFailedError:
        return 1
    except (DistNetworkError, DistStoreError) as error:
        _leave_problem(Path(arguments[-1]), str(error).partition("\n")[0])
        return 1
    return 0


def _leave_problem(folder: Path, said: str) -> None:
    """Report to the step, through its work folder, that the rendezvous failed."""
    from stages.train.distributed.launch import problems_text

    hint = "start the step on every host within ADAPTERBUILD_HOST_TIMEOUT seconds (1800), each with its own NODE_RANK and one MASTER_ADDR"
    text = problems_text(UserError(f"the hosts of this training could not connect: {said}", hint=hint))
    (folder / "error-meeting.json").write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
