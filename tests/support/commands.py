"""The command line of `engine` in this process: for tests of what it says and writes, which need not pay for a process and its imports."""

import os
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess

from engine.cli import main as cli
from engine.cli.app import Settings
from tests.support import json_output


def engine(root: Path, *arguments: str) -> CompletedProcess[str]:
    """What `engine ARGUMENTS` says in the folder ROOT, and its exit code; what would be a traceback is raised here."""
    out, err, status = StringIO(), StringIO(), 0
    with chdir(root), redirect_stdout(out), redirect_stderr(err), _as_a_command(list(arguments)):
        try:
            cli.main()
        except SystemExit as ended:
            assert ended.code is None or isinstance(ended.code, int), ended.code
            status = ended.code or 0
    json_output.check(arguments, out.getvalue())
    return CompletedProcess(list(arguments), status, out.getvalue(), err.getvalue())


@contextmanager
def _as_a_command(arguments: list[str]) -> Iterator[None]:
    """ARGUMENTS as those of this process; what a command sets for itself is taken back."""
    before, environment = sys.argv, dict(os.environ)
    sys.argv = ["engine", *arguments]
    try:
        yield
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environment)
        Settings.workspace = Path()
