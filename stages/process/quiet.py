"""Libraries keep their remarks to themselves: what they say to developers reaches no user's terminal."""

import logging
import sys
import warnings


def keep_quiet() -> None:
    """Hide warnings and log records below ERROR of every library that has no handler of its own.

    What asks the user to do something is said by this project's own code. Python's `-W` or PYTHONWARNINGS brings the warnings back.
    """
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
