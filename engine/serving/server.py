"""Runs the server: takes the port, loads the models, and ends as the user asks."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import uvicorn

from engine.core.errors import UserError
from engine.serving.application import Application
from engine.serving.queueing import Queue
from engine.serving.served import Choice


@dataclass(frozen=True)
class Endpoint:
    """Where the server listens, and what it tells its user."""

    host: str
    port: int
    """0: the system chooses a free one."""
    key: str | None
    """The key that requests must have; None: none."""
    ready: Callable[[str], None]
    """Is called with the base URL when requests are answered."""
    loading: Callable[[str], None]
    """Is called with the name of each model before it is loaded."""
    stopping: Callable[[int], None]
    """Is called at the first ^C with the number of requests in flight."""
    stopped: int
    """The exit code of a second ^C."""


def run(choice: Choice, queue: Queue, endpoint: Endpoint) -> None:
    """Serve the models of CHOICE, which QUEUE answers, until ^C or SIGTERM; requests in flight are finished.

    Raises UserError if the port cannot be used or a model cannot be loaded, RuntimeError if the process that answers ends.
    """
    with _listening(endpoint.host, endpoint.port) as listening:
        asyncio.run(_serve(choice, queue, endpoint, listening))


async def _serve(choice: Choice, queue: Queue, endpoint: Endpoint, listening: socket.socket) -> None:
    try:
        await queue.start(endpoint.loading)
        application = Application(choice, queue, endpoint.key).asgi()
        config = uvicorn.Config(application, log_level="error", access_log=False, lifespan="off", server_header=False)
        server = _Server(config, queue, endpoint)
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        host, port = listening.getsockname()[:2]
        endpoint.ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        await asyncio.wait((serving, queue.ended), return_when=asyncio.FIRST_COMPLETED)
        if queue.ended.done() and not serving.done():
            server.should_exit = True
            await serving
            raise RuntimeError(queue.ended.result())
        await serving
    finally:
        queue.kill()


class _Server(uvicorn.Server):
    """uvicorn, which finishes requests in flight at the first signal; a second one ends the process at once."""

    def __init__(self, config: uvicorn.Config, queue: Queue, endpoint: Endpoint) -> None:
        super().__init__(config)
        self._queue, self._endpoint = queue, endpoint

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._queue.kill()
            os._exit(self._endpoint.stopped)
        self.should_exit = True
        self._endpoint.stopping(self._queue.in_flight)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at HOST and PORT that takes connections when the server does; raises UserError if there can be none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UserError(
            f"{host} is no address of this machine: {error.strerror}", hint="--host 127.0.0.1 serves this machine only"
        ) from None
    with socket.socket(family, kind, protocol) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(address)
            # Another server that has bound the port and does not listen yet is noticed here.
            made.listen(2048)
        except OSError as error:
            hint = "--port 0 takes a free one" if error.errno == errno.EADDRINUSE else None
            what = {errno.EADDRINUSE: "is in use", errno.EACCES: "needs privileges"}.get(
                error.errno or 0, f"cannot be used: {error.strerror}"
            )
            raise UserError(f"port {port} of {host} {what}", hint=hint) from None
        yield made
