"""The report of a workspace on loopback, made anew while a build runs; pages reload themselves when it has changed."""

import errno
import html
import sys
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from threading import Lock
from typing import Any

from engine.core.errors import UserError, visible

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_REST = 10.0
"""After a page, none is made for as long as that took, but at most for so many seconds: the build needs the processor too."""


class Page:
    """The page, and the stamp of what it shows."""

    def __init__(self, make: Callable[[str], str], stamp: Callable[[], str]) -> None:
        """MAKE makes the page for a stamp; STAMP changes when the page would."""
        self._make, self._stamp = make, stamp
        self._lock = Lock()
        self._shown, self._text, self._status = "", "", 200
        self._rests_until = 0.0

    @property
    def stamp(self) -> str:
        """What a page that is asked for now would show."""
        return self._stamp() if time.monotonic() >= self._rests_until else self._shown

    def text(self) -> tuple[int, str]:
        """The page, made anew if what it shows has changed, and its HTTP status: 500 for one that only says why there is none."""
        with self._lock:
            if (now := self.stamp) != self._shown:
                started = time.monotonic()
                try:
                    self._status, self._text, self._shown = 200, self._make(now), now
                except Exception as error:  # whatever it is, the page tries again: a build may have moved a file meanwhile
                    sys.stderr.write(visible(traceback.format_exc()))
                    shown = f"{now} failed"
                    self._status, self._text, self._shown = 500, _failed(error, shown), shown
                self._rests_until = time.monotonic() + min(_REST, time.monotonic() - started)
            return self._status, self._text


def _failed(error: Exception, stamp: str) -> str:
    """A page that says that ERROR has happened, and reloads itself like another."""
    script = resources.files("engine.report").joinpath("reload.js").read_text("utf-8")
    said = html.escape(f"{type(error).__name__}: {error}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f"<title>Report</title></head><body><h1>Report</h1><p>The report could not be made, and is tried again: {said}</p>"
        f'<script data-stamp="{html.escape(stamp)}">\n{script}</script></body></html>\n'
    )


class Server(ThreadingHTTPServer):
    """A server of pages on loopback."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who has gone before the answer was there is none of the server's errors."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def handler(page: Page) -> type[BaseHTTPRequestHandler]:
    """What answers the requests for PAGE and its stamp."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A page of another host must not read this one through a name that leads here.
            # A browser leaves port 80 out.
            if self.headers.get("Host", "").partition(":")[0] not in _NAMES:
                self.send_error(403)
            elif self.path == "/":
                self._answer(*page.text(), "text/html")
            elif self.path == "/stamp":
                self._answer(200, page.stamp, "text/plain")
            else:
                self.send_error(404)

        def _answer(self, status: int, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet: pages ask every two seconds."""

    return Handler


def serve(page: Page, port: int, ready: Callable[[str], None]) -> None:
    """Serve PAGE on PORT of loopback (0: a free one) until ^C; READY is told the address. Raises UserError if the port cannot be used."""
    try:
        server = Server((HOST, port), handler(page))
    except OSError as error:
        what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise UserError(f"port {port} of {HOST} {what}", hint="--port 0 takes a free one") from None
    with server:
        ready(f"http://{HOST}:{server.server_address[1]}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
