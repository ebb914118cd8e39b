"""The report of a workspace on loopback, made anew while a build runs; pages reload themselves when it has changed."""

import errno
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from engine.core.errors import UserError

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
        self._shown, self._text = "", ""
        self._rests_until = 0.0

    @property
    def stamp(self) -> str:
        """What a page that is asked for now would show."""
        return self._stamp() if time.monotonic() >= self._rests_until else self._shown

    def text(self) -> str:
        """The page, made anew if what it shows has changed."""
        with self._lock:
            if (now := self.stamp) != self._shown:
                started = time.monotonic()
                self._text, self._shown = self._make(now), now
                self._rests_until = time.monotonic() + min(_REST, time.monotonic() - started)
            return self._text


def serve(page: Page, port: int, ready: Callable[[str], None]) -> None:
    """Serve PAGE on PORT of loopback (0: a free one) until ^C; READY is told the address. Raises UserError if the port cannot be used."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A page of another host must not read this one through a name that leads here.
            if self.headers.get("Host", "").rpartition(":")[0] not in _NAMES:
                self.send_error(403)
            elif self.path == "/":
                self._answer(page.text(), "text/html")
            elif self.path == "/stamp":
                self._answer(page.stamp, "text/plain")
            else:
                self.send_error(404)

        def _answer(self, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet: pages ask every two seconds."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise UserError(f"port {port} of {HOST} {what}", hint="--port 0 takes a free one") from None
    with server:
        ready(f"http://{HOST}:{server.server_address[1]}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
