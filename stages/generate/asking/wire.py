"""The HTTP below the official client: a session of aiohttp, which takes a third of the time of httpx's own connections."""

import asyncio
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2

_AIOHTTPS_OWN = ("content-length", "host", "connection")


@dataclass(frozen=True)
class Head:
    """Where a request goes, and all that it says but its body."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Received:
    """A whole response, its body still encoded as it came."""

    status: int
    headers: Mapping[str, str]
    raw_headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Wire(httpx2.AsyncClient):
    """Sends what the official client has built, and remembers the last head; errors become httpx's own, which that client knows."""

    def __init__(self, base_url: str, connections: int, timeout: float, anonymous: bool = False) -> None:
        # Nothing of httpx's own transport is used; it would read certificates and proxies for nothing.
        super().__init__(transport=httpx2.AsyncBaseTransport(), trust_env=False)
        self._proxy = proxy_of(base_url)
        # The official client insists on a key; an endpoint that takes none is sent none.
        self._unsent = {*_AIOHTTPS_OWN, *(["authorization"] if anonymous else [])}
        self._limit, self._seconds = connections, timeout
        self._session: aiohttp.ClientSession | None = None
        self.last_head: Head | None = None

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The response to a request of the official client."""
        headers = tuple((name, value) for name, value in request.headers.multi_items() if name not in self._unsent)
        self.last_head = Head(request.method, str(request.url), headers)
        try:
            got = await self.transfer(self.last_head, await request.aread())
        except TimeoutError as error:
            raise httpx2.ReadTimeout(f"no whole answer within {self._seconds:g} s", request=request) from error
        except aiohttp.ClientError as error:
            raise httpx2.ReadError(str(error) or type(error).__name__, request=request) from error
        return httpx2.Response(got.status, headers=list(got.raw_headers), content=got.body, request=request)

    async def transfer(self, head: Head, body: bytes) -> Received:
        """Send BODY under HEAD; raises TimeoutError and aiohttp.ClientError."""
        # A redirect is an answer of its own: following it would carry the question, and perhaps the key, elsewhere.
        async with self._opened().request(
            head.method, head.url, data=body, headers=head.headers, proxy=self._proxy, allow_redirects=False
        ) as response:
            return Received(response.status, response.headers, response.raw_headers, await response.read())

    def _opened(self) -> aiohttp.ClientSession:
        """The session, made inside the running loop, as aiohttp wants it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=30),
                timeout=aiohttp.ClientTimeout(total=self._seconds, sock_connect=min(self._seconds, 30.0)),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # the connections close in the loop's next round
        await super().aclose()


def proxy_of(url: str, proxies: Mapping[str, str] | None = None) -> str | None:
    """The proxy that the environment names for URL (HTTPS_PROXY, NO_PROXY and their like)."""
    parts = urlsplit(url)
    found = (urllib.request.getproxies() if proxies is None else proxies).get(parts.scheme)
    return None if not found or urllib.request.proxy_bypass(parts.hostname or "") else found
