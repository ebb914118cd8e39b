"""The HTTP client below the official one: a session of aiohttp, which takes a third of the time of httpx's own connections."""

import asyncio
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2


class Wire(httpx2.AsyncClient):
    """Sends what the official client has built; time-outs and broken connections become httpx's own errors, which that client knows."""

    def __init__(self, base_url: str, connections: int, timeout: float, anonymous: bool = False) -> None:
        # Nothing of httpx's own transport is used; it would read certificates and proxies for nothing.
        super().__init__(transport=httpx2.AsyncBaseTransport(), trust_env=False)
        self._proxy = proxy_of(base_url)
        # The official client insists on a key; an endpoint that takes none is sent none.
        self._unsent = {"content-length", "host", "connection", *(["authorization"] if anonymous else [])}
        self._limit, self._seconds = connections, timeout
        self._session: aiohttp.ClientSession | None = None

    def build_request(self, method: str, url: Any, **parts: Any) -> httpx2.Request:
        """The request; one with a finished body, as all questions are, needs none of httpx's merging."""
        if parts.get("content") is None or parts.get("files") or parts.get("params"):
            return super().build_request(method, url, **parts)
        return httpx2.Request(method, url, headers=parts.get("headers"), content=parts["content"])

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The response with its whole body, still encoded as it came."""
        body = await request.aread()
        # Length and host are aiohttp's to say.
        headers = [(name, value) for name, value in request.headers.multi_items() if name not in self._unsent]
        try:
            # A redirect is an answer of its own: following it would carry the question, and perhaps the key, elsewhere.
            async with self._opened().request(
                request.method, str(request.url), data=body, headers=headers, proxy=self._proxy, allow_redirects=False
            ) as response:
                content = await response.read()
        except TimeoutError as error:
            raise httpx2.ReadTimeout(f"no whole answer within {self._seconds:g} s", request=request) from error
        except aiohttp.ClientError as error:
            raise httpx2.ReadError(str(error) or type(error).__name__, request=request) from error
        return httpx2.Response(response.status, headers=list(response.raw_headers), content=content, request=request)

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
