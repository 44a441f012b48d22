"""One GET over httpcore's connection pool, to addresses that were checked. The only file that knows httpx.

The name in the URL stays the origin (pool key, TLS server name, Host), and the address that the resolver approved is
what is dialled: a second answer of the name server is never asked for. No cookies, no proxy, no redirects, no
decompression here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ssl import SSLContext

import httpcore
import httpx

from gpuflow.config import FetchPolicy
from gpuflow.errors import FetchFailed, GpuflowError
from gpuflow.fetch.resolve import Resolver
from gpuflow.fetch.url import CheckedURL

MAX_HEAD_BYTES = 64 * 1024
_KEEPALIVE_SECONDS = 5.0  # a kept connection is not checked again
_KEEPALIVE_CONNECTIONS = 20


class Client:
    """Sends requests for one policy. Made off the event loop: loading the certificates takes 25 ms."""

    def __init__(self, policy: FetchPolicy, resolver: Resolver) -> None:
        self._transport = _PinnedTransport(policy, resolver)
        self._headers = {"User-Agent": policy.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._timeouts = {"connect": policy.connect_seconds, "read": policy.read_seconds, "write": policy.read_seconds}

    async def get(self, url: CheckedURL) -> Answer:
        """The head of the response; ``aclose()`` the answer in every case.

        Raises:
            FetchFailed: connection, TLS or protocol failed, or the head is longer than 64 KiB.
            UnsafeURL: the name leads to an address that must not be dialled.
        """
        request = httpx.Request(
            "GET",
            httpx.URL(scheme=url.scheme, host=url.host, port=url.port, raw_path=url.target.encode("ascii")),
            headers=self._headers,
            extensions={"timeout": self._timeouts},
        )
        with _translated(url.host):
            response = await self._transport.handle_async_request(request)
        return Answer(response, url.host)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body was not read yet."""

    _response: httpx.Response
    _host: str

    @property
    def status(self) -> int:
        """The final status; 1xx are passed over."""
        return self._response.status_code

    def header(self, name: str) -> str | None:
        """A header; repeated ones joined by commas."""
        values = self._response.headers.get_list(name)
        return ", ".join(values) if values else None

    def expect(self, max_wire_bytes: int) -> None:
        """How many bytes the body may take on the wire, framing included."""
        self._response.extensions["network_stream"].allow(max_wire_bytes)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes.

        Raises:
            FetchFailed: it broke off, or its framing is wrong.
        """
        with _translated(self._host):
            async for chunk in self._response.aiter_raw():
                yield chunk

    async def aclose(self) -> None:
        """Give the connection back; it is closed unless the body was read to its end."""
        with _translated(self._host):
            await self._response.aclose()


class _PinnedTransport(httpx.AsyncBaseTransport):
    def __init__(self, policy: FetchPolicy, resolver: Resolver) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_ssl_context(),
            max_connections=policy.max_connections,
            max_keepalive_connections=_KEEPALIVE_CONNECTIONS,
            keepalive_expiry=_KEEPALIVE_SECONDS,
            network_backend=_PinnedBackend(resolver),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        response = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream()

    async def aclose(self) -> None:
        await self._response.aclose()


class _PinnedBackend(httpcore.AsyncNetworkBackend):
    """Dials what the resolver approved. Reached by every connection of the pool, whatever asked for it."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolver.addresses(host)
        ends = time.monotonic() + (timeout or 0.0)
        failure: Exception = FetchFailed(f"{host} has no address")
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = max(0.0, ends - time.monotonic()) / left  # a silent address leaves time for the next
            try:
                return _MeteredStream(await self._inner.connect_tcp(address, port, share, None, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _MeteredStream(httpcore.AsyncNetworkStream):
    """Counts what is read: a request begins with a write, after it the head may take 64 KiB, then the body its own."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._left = MAX_HEAD_BYTES
        self._part = "head"

    def allow(self, num_bytes: int) -> None:
        self._left, self._part = num_bytes, "body"

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left <= 0:
            raise FetchFailed(f"the response's {self._part} takes more bytes on the wire than it may")
        data = await self._inner.read(min(max_bytes, self._left), timeout)
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._left, self._part = MAX_HEAD_BYTES, "head"
        await self._inner.write(buffer, timeout)

    async def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _MeteredStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _ssl_context() -> SSLContext:
    """Certificates of ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` where the operator set them, else certifi's."""
    return httpx.create_ssl_context()


@contextmanager
def _translated(host: str) -> Iterator[None]:
    try:
        yield
    except GpuflowError:
        raise
    except Exception as error:  # httpcore, h11, anyio and ssl each have their own tree, and none covers all of it
        raise FetchFailed(f"{host}: {type(error).__name__}: {error}") from error
