"""`python -P -m adapterbuild stages KIND NAME`: run one step as DVC does, from its identity file to artifact, metrics and provenance."""

import sys
import traceback

from engine.core.errors import UserError, no_room, visible
from stages.process.job import PREEMPTED, Preempted
from stages.process.progress import end_bars
from stages.runner import run_step


def main(arguments: list[str]) -> int:
    """Run the step KIND NAME and return the exit code.

    0: built; 1: an error that the user can fix; 2: wrong usage; 75: preempted, with its state saved; 130: interrupted.
    """
    if len(arguments) != 2:
        print(
            "usage: python -P -m adapterbuild stages KIND NAME   (`engine build` and `dvc repro` call this)",
            file=sys.stderr,
        )
        return 2
    try:
        try:
            run_step(*arguments)
        finally:
            end_bars()
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except Preempted as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return PREEMPTED
    except KeyboardInterrupt:
        print("interrupted: this step's partial output was discarded", file=sys.stderr)
        return 130
    except Exception as error:
        full = no_room(error) if isinstance(error, OSError) else None
        # The message of an error may quote the data.
        print(full or visible(traceback.format_exc()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
