"""Runs Python code that a model wrote with its unit tests: one process for each answer, with limits, without network and without our files.

Two ways of isolation. `bubblewrap` (https://github.com/containers/bubblewrap) gives the process namespaces of its own: no network, no
other process, and of the file system Python and the system's libraries alone, read-only. `limits` does without namespaces, for machines
that may be lost. Both limit time, memory and the size of files, clear the environment, and refuse new processes, sockets and writing
outside an empty folder by an audit hook (PEP 578). A hook stops accidents; malicious code may get around it, but not around namespaces.
Nor does anything here stop code that looks for what judges it: as HumanEval (arXiv:2107.03374), this measures models, not adversaries.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from engine.core.errors import UserError
from stages.process.numerics import cores

Isolation = Literal["bubblewrap", "limits"]
"""How strictly code is isolated."""

_SLEEP = 4
"""Seconds of the clock for each second of the processor that a program may use; what waits longer has failed."""

_LARGEST_FILE = 16 * 2**20
"""Bytes."""

_PROGRAM = r"""
import json, os, random, resource, sys, types, unittest

given = json.loads(sys.stdin.buffer.read())
told, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
for number in range(3):
    os.dup2(null, number)
for limit, value in given["limits"].items():
    resource.setrlimit(getattr(resource, limit), (value, value))
here = os.path.realpath(os.getcwd()) + os.sep

def outside(path):
    return isinstance(path, (str, bytes)) and not (os.path.realpath(os.fsdecode(path)) + os.sep).startswith((here, "/dev/null/"))

# Events of code that would leave its folder or its process.
DENIED = (
    "ctypes.", "os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.system", "pty.", "signal.pthread_kill",
    "socket.", "subprocess.",
)
CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "os.utime",
}

def watch(event, arguments):
    if event.startswith(DENIED):
        raise PermissionError(f"{event} is not allowed")
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) if isinstance(flags, int) else set(mode or "r") & set("wax+")
        if writes and outside(path):
            raise PermissionError(f"{path} is not writable")
    elif event in CHANGES and any(map(outside, arguments)):
        raise PermissionError(f"{event} is not allowed here")

# A module, as dataclasses and typing look it up; not __main__, whose guarded part would wait for input.
answer = types.ModuleType("answer")
sys.modules["answer"] = answer
code = [compile(given[name], f"<{name}>", "exec") for name in ("answer", "tests")]
random.seed(0)
sys.addaudithook(watch)
for part in code:
    exec(part, answer.__dict__)
for name, found in list(vars(answer).items()):
    if name.startswith("test_") and isinstance(found, types.FunctionType):
        found()
outcome = unittest.TestResult()
unittest.defaultTestLoader.loadTestsFromModule(answer).run(outcome)
if outcome.wasSuccessful():
    os.write(told, given["token"].encode())
os._exit(0)
"""
"""Writes the token to standard output if the code runs, its tests pass, and nothing has ended the process before: an answer that
calls `sys.exit` has passed nothing."""


@dataclass(frozen=True)
class Program:
    """Code, and the tests that run after it in the same module."""

    answer: str
    tests: str


@dataclass(frozen=True)
class Sandbox:
    """How programs are run.

    Args:
        isolation: bubblewrap, or limits alone.
        seconds: processor time of one program.
        memory_mb: address space of one program, in MB (10^6 bytes).
    """

    isolation: Isolation
    seconds: int
    memory_mb: int

    def passes(self, programs: Sequence[Program]) -> list[bool]:
        """Whether the tests of each program pass; as many at once as this process has cores.

        Raises UserError if programs cannot be isolated on this machine.
        """
        if not programs:
            return []
        self._try()
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(lambda program: self._run(program)[0], programs))

    def _try(self) -> None:
        hint = 'in a container or on a machine that is thrown away itself: isolation = "limits"'
        if self.isolation == "bubblewrap" and not shutil.which("bwrap"):
            what = "unit_tests runs what a model wrote with bubblewrap, and there is no bwrap on PATH"
            raise UserError(what, hint=f"install it (Debian: apt-get install bubblewrap); {hint}")
        passed, said = self._run(Program("", ""))
        if not passed:
            raise UserError(f"unit_tests cannot run Python isolated by {self.isolation}: {said or 'an empty program fails'}", hint=hint)

    def _run(self, program: Program) -> tuple[bool, str]:
        """Whether the tests pass, and what the way of isolation complained of."""
        token = secrets.token_hex(16)
        limits = {
            "RLIMIT_CPU": self.seconds,
            "RLIMIT_AS": self.memory_mb * 10**6,
            "RLIMIT_FSIZE": _LARGEST_FILE,
            "RLIMIT_CORE": 0,
        }
        given = json.dumps({"answer": program.answer, "tests": program.tests, "token": token, "limits": limits})
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                [*self._isolated(folder), os.path.realpath(sys.executable), "-P", "-s", "-S", "-B", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=told,
                stderr=complaints,
                cwd=folder,
                env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                start_new_session=True,
            )
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(given.encode("utf-8", "surrogatepass"), timeout=self.seconds * _SLEEP)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            told.seek(0)
            complaints.seek(0)
            return told.read(2 * len(token)) == token.encode(), complaints.read(1000).decode("utf-8", "replace").strip()

    def _isolated(self, folder: str) -> list[str]:
        """The command before Python's."""
        if self.isolation == "limits":
            return []
        # Python and the libraries of the system: neither the workspace nor anybody's home.
        readable = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/nix/store", sys.base_prefix)
        return [
            *(shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--new-session"),
            *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
            *(word for path in readable for word in ("--ro-bind-try", path, path)),
            *("--bind", folder, folder, "--chdir", folder),
        ]
