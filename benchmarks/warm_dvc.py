"""DVC's own command line in forks of a process that has imported it: what a cold start would do, without a second of imports each time."""

import sys

if __name__ == "__main__":
    # Run as a script: this folder itself must not be searched, where a benchmark of tokenize would stand before Python's own module.
    del sys.path[0]

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_IMPORTS = ("dvc.cli", "dvc.repo", "dvc.commands.repro", "dvc.repo.reproduce", "dvc.stage.run", "dvc.stage.cache", "dvc.output")


class WarmDvc:
    """Starts a process per command, as `python -m dvc` does, but with DVC already imported."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """What `dvc ARGUMENTS` gives in CWD."""
        if self._server is None or self._server.poll() is not None:
            self._server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._server.stdin and self._server.stdout
        output, errors = cwd.parent / "dvc.out", cwd.parent / "dvc.err"
        request = {"arguments": list(arguments), "cwd": str(cwd), "environment": dict(environment), "files": [str(output), str(errors)]}
        print(json.dumps(request), file=self._server.stdin, flush=True)
        code = int(self._server.stdout.readline())
        return subprocess.CompletedProcess(["dvc", *arguments], code, output.read_text("utf-8"), errors.read_text("utf-8"))


def serve(requests: IO[str]) -> None:
    """Answer each request, a line of JSON, with the exit code of a fork that ran it."""
    import importlib

    for module in _IMPORTS:
        importlib.import_module(module)
    for line in requests:
        child = os.fork()
        if child == 0:
            os._exit(_command(json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _command(request: dict[str, Any]) -> int:
    from dvc.cli import main

    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for descriptor, path in enumerate(request["files"], 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    code: int = main(request["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(sys.stdin)
