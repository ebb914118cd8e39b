"""Steps as forks of one process that has imported the libraries (see engine.entry.fork_server): the build's end of it."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from engine.build.machine import has_gpu
from engine.core.graph import Graph, Step
from engine.dvc.dvcfile import RESOURCES, TEMPORARY
from stages.process.parent import PARENT, named
from stages.process.starting import ours

_IMPORTS_MUCH = "torch"
"""The package whose import is worth a fork server."""


@dataclass
class Fork:
    """A running step, with the methods of subprocess.Popen that a build needs; it is a child of the fork server."""

    pid: int
    pidfd: int
    connection: socket.socket
    """Receives the exit status."""
    status: int | None = None

    def poll(self) -> int | None:
        """The exit status if the step has ended, negative for a signal, else None."""
        if self.status is None and _is_readable(self.connection, 0):
            answer = self.connection.recv(16)
            if answer or _is_readable(self.pidfd, 0):
                # Without an answer the server has died, as it does when the kernel needs its memory; its forks have received SIGTERM.
                self.status = int(answer or -signal.SIGKILL)
                self.connection.close()
                os.close(self.pidfd)
        return self.status

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the step has ended; raises subprocess.TimeoutExpired after TIMEOUT seconds."""
        if self.status is None and not (_is_readable(self.pidfd, timeout) and _is_readable(self.connection, timeout)):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        status = self.poll()
        assert status is not None, "a process that has ended has a status"
        return status

    def send_signal(self, number: int) -> None:
        """Send the signal NUMBER, unless the step has ended."""
        if self.status is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


@dataclass
class Forks:
    """The fork server of a build, started when the first step that profits from it is near."""

    root: Path
    environment: Mapping[str, str]
    graph: Graph
    _server: "subprocess.Popen[bytes] | None" = None
    _control: socket.socket | None = None
    _is_ready: bool | None = None
    """None while the server imports the libraries."""

    @cached_property
    def _profiting(self) -> frozenset[str]:
        """The steps that import torch, and all steps before them: the server imports while those run."""
        return frozenset(step.name for step in self.graph.needed_for(step.name for step in self.graph if _is_heavy(step)))

    def start(self, step: Step, output: IO[bytes] | None) -> Fork | None:
        """Start STEP as a fork that writes to OUTPUT (default: where this process writes); None if it must be a process of its own."""
        if self._server is None and step.name in self._profiting:
            self._control, self._server = self._start_server()
        if self._control is None or not self._ready(_is_heavy(step)) or not self._has_portable_numerics(step):
            return None
        connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors = [output.fileno()] * 2 if output else [1, 2]
        with theirs, suppress(OSError):
            socket.send_fds(self._control, [json.dumps([step.kind_name, step.name]).encode()], [*descriptors, theirs.fileno()])
        pid, received, _, _ = socket.recv_fds(connection, 16, 1)
        if received:
            return Fork(int(pid), received[0], connection)
        # The server has died, or packages were installed after it started.
        connection.close()
        self._is_ready = False
        return None

    def _start_server(self) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = self.root / TEMPORARY / "adapterbuild" / "fork-server.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**self.environment, PARENT: named()}
        with theirs, log.open("wb") as messages:
            server = subprocess.Popen(
                ours("engine.entry.fork_server"), cwd=self.root, env=environment, stdin=theirs.fileno(), stdout=messages, stderr=messages
            )
        return control, server

    def _ready(self, wait: bool) -> bool:
        """Whether the server can fork; with WAIT, wait while it imports."""
        if self._is_ready is None and self._control and _is_readable(self._control, None if wait else 0):
            self._is_ready = self._control.recv(16) != b""
        return bool(self._is_ready)

    def _has_portable_numerics(self, step: Step) -> bool:
        """Whether STEP runs with the numerics for which the server has set its environment; read where the step reads it."""
        path = self.root / RESOURCES / f"{step.name}.json"
        return not path.exists() or json.loads(path.read_text("utf-8")).get("numerics", "portable") == "portable"

    def close(self) -> None:
        """End the server, and with it all forks that still run."""
        if self._control and self._server:
            self._control.close()
            self._control = None
            self._server.kill()
            self._server.wait()


def forks(root: Path, environment: Mapping[str, str], graph: Graph) -> Forks | None:
    """The fork server for a build of GRAPH, not started yet; None if this machine cannot have one.

    What has seen a GPU cannot be forked, since the driver's state does not survive it; elsewhere than on Linux nothing would end its forks.
    """
    return Forks(root, environment, graph) if sys.platform == "linux" and not has_gpu() else None


def _is_heavy(step: Step) -> bool:
    return _IMPORTS_MUCH in step.kind.environment


def _is_readable(descriptor: int | socket.socket, timeout: float | None) -> bool:
    """Whether DESCRIPTOR becomes readable within TIMEOUT seconds; None waits for as long as that takes."""
    return bool(select.select([descriptor], [], [], timeout)[0])
