"""The program `engine`: the commands of all modules, in the order in which `--help` lists them."""

import io
import os
import sys
from types import TracebackType
from typing import Any

# isort: off
from engine.cli import setup, specs, plan, build, work, results  # noqa: F401 - each adds its commands to the app
from engine.cli import artifacts, completion, graph, history, importing, inspect, keys, lock, pin, preview, publish  # noqa: F401
from engine.cli import report, serve, sweep, talk  # noqa: F401

# isort: on
from engine.cli.app import COMPLETION_VARIABLE, MISTAKE, app
from engine.cli.values import command_of
from engine.core.errors import UserError, no_room, visible


def command() -> Any:
    """The whole command line: every command of every module."""
    return command_of(app)


def main() -> None:
    """Run a command; a user error is printed without a traceback, exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows `?` in place of tree lines
    if COMPLETION_VARIABLE in os.environ:
        from typer.completion import completion_init

        completion_init()
    sys.excepthook = _unexpected
    try:
        command()(complete_var=COMPLETION_VARIABLE)
    except UserError as error:
        from engine.cli import render

        render.error(error)
        sys.exit(MISTAKE)
    except OSError as error:
        if (full := no_room(error)) is None:
            raise
        from engine.cli import render

        render.error(full)
        sys.exit(MISTAKE)


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an error that nobody foresaw; its message may quote data."""
    import traceback

    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))
