"""HTTP transport below the official client: an aiohttp session, which takes a third of the time of httpx's connections."""

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
    """A request without its body: URL and headers."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Received:
    """A whole response, with its body still content-encoded."""

    status: int
    headers: Mapping[str, str]
    raw_headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Wire(httpx2.AsyncClient):
    """Sends the official client's requests through aiohttp and remembers the last head; raises httpx's errors, as that client expects."""

    def __init__(self, base_url: str, connections: int, timeout: float, anonymous: bool = False) -> None:
        # httpx's transport is unused; it would load certificates and proxies needlessly.
        super().__init__(transport=httpx2.AsyncBaseTransport(), trust_env=False)
        self._proxy = proxy_of(base_url)
        # The official client requires a key; none is sent to an endpoint without one.
        self._unsent = {*_AIOHTTPS_OWN, *(["authorization"] if anonymous else [])}
        self._limit, self._seconds = connections, timeout
        self._session: aiohttp.ClientSession | None = None
        self.last_head: Head | None = None

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The response to REQUEST of the official client."""
        headers = tuple((name, value) for name, value in request.headers.multi_items() if name not in self._unsent)
        self.last_head = Head(request.method, str(request.url), headers)
        try:
            got = await self.transfer(self.last_head, await request.aread())
        except TimeoutError as error:
            raise httpx2.ReadTimeout(f"no complete response within {self._seconds:g} s", request=request) from error
        except aiohttp.ClientError as error:
            raise httpx2.ReadError(str(error) or type(error).__name__, request=request) from error
        return httpx2.Response(got.status, headers=list(got.raw_headers), content=got.body, request=request)

    async def transfer(self, head: Head, body: bytes) -> Received:
        """Send BODY with HEAD; raises TimeoutError and aiohttp.ClientError."""
        # Redirects are returned, not followed: following would send the question, and perhaps the key, elsewhere.
        async with self._opened().request(
            head.method, head.url, data=body, headers=head.headers, proxy=self._proxy, allow_redirects=False
        ) as response:
            return Received(response.status, response.headers, response.raw_headers, await response.read())

    def _opened(self) -> aiohttp.ClientSession:
        """The session, created inside the running loop, as aiohttp requires."""
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
            await asyncio.sleep(0)  # the connections close in the loop's next iteration
        await super().aclose()


def proxy_of(url: str, proxies: Mapping[str, str] | None = None) -> str | None:
    """The proxy for URL from the environment (HTTPS_PROXY, NO_PROXY, ...); None for a direct connection."""
    parts = urlsplit(url)
    found = (urllib.request.getproxies() if proxies is None else proxies).get(parts.scheme)
    return None if not found or urllib.request.proxy_bypass(parts.hostname or "") else found
