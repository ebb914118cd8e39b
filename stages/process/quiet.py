"""Silences libraries: their messages are for developers, not for users of this project."""

import logging
import sys
import warnings

DECIDES_NO_BYTES = True
"""Not part of a step's identity: what libraries print does not affect results."""


def keep_quiet() -> None:
    """Hide warnings, and log records below ERROR of every library without its own handler.

    Messages that require action come from this project's code. Python's `-W` or PYTHONWARNINGS shows the warnings.
    """
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
