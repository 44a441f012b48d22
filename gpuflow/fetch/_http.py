"""One GET over httpcore's HTTP/1.1, to addresses that were checked. The only file that knows httpx.

The name in the URL stays the origin (key of idle connections, TLS server name, Host), and an address that the resolver
approved is what is dialled: a second answer of the name server is never asked for. No cookies, no proxy but the one that
the operator names, no redirects, no decompression here.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ssl import SSLContext
from urllib.parse import unquote_to_bytes

import httpcore
import httpx

from gpuflow.config import FetchPolicy
from gpuflow.errors import FetchFailed, GpuflowError
from gpuflow.fetch.resolve import Resolver
from gpuflow.fetch.url import CheckedURL

MAX_HEAD_BYTES = 64 * 1024
_KEEPALIVE_SECONDS = 5.0  # a kept connection is not checked again
_IDLE_CONNECTIONS = 20
_HUNG_UP = (httpcore.NetworkError, httpcore.RemoteProtocolError, ConnectionError)


class Client:
    """Sends requests for one policy. Made off the event loop: loading the certificates takes 25 ms."""

    def __init__(self, policy: FetchPolicy, resolver: Resolver) -> None:
        self._transport = _PinnedTransport(policy, resolver)
        self._headers = {"User-Agent": policy.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._timeouts = {"read": policy.read_seconds, "write": policy.read_seconds}

    async def get(self, url: CheckedURL, *, part: tuple[int, int] | None = None, version: str | None = None) -> Answer:
        """The head of the response; ``aclose()`` the answer in every case. ``part``: the first and last byte that are
        wanted, of the ``version`` with that ETag.

        Raises:
            FetchFailed: connection, TLS or protocol failed, or the head is longer than 64 KiB.
            UnsafeURL: the name leads to an address that must not be dialled.
        """
        request = httpx.Request(
            "GET",
            httpx.URL(scheme=url.scheme, host=url.host, port=url.port, raw_path=url.target.encode("ascii")),
            headers=self._headers
            | ({"Range": f"bytes={part[0]}-{part[1]}"} if part else {})
            | ({"If-Range": version} if version else {}),
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
    """HTTP/1.1 over connections that belong to one request at a time, or lie idle here.

    httpcore's own pool is not used: a task that is cancelled while it waits for one of the pool's locks leaves its
    connection there for ever, open and counted, until none is left. Here whoever holds a connection closes it.
    """

    def __init__(self, policy: FetchPolicy, resolver: Resolver) -> None:
        self._connect_seconds = policy.connect_seconds
        self._resolver = resolver
        self._certificates = _ssl_context()
        self._proxy = _Proxy(policy, resolver) if policy.proxy else None
        self._idle: list[_Connection] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers = request.headers.raw
        if self._proxy is not None and target.scheme == b"http":
            headers = [*headers, *self._proxy.login]
        asked = httpcore.Request(request.method, self._address(target), headers=headers, extensions=request.extensions)
        connection, response = await self._ask(target.origin, asked)
        body = _Body(self, connection, response)
        return httpx.Response(
            response.status, headers=response.headers, stream=body, extensions={"network_stream": connection.stream}
        )

    async def _ask(self, origin: httpcore.Origin, asked: httpcore.Request) -> tuple[_Connection, httpcore.Response]:
        """The head of the answer. Where a connection ends before it brought one byte of it, say because it had lain
        idle for too long, another one is tried, once."""
        for last in (False, True):
            connection = (None if last else self._take(origin)) or await self._connect(origin)
            try:
                return connection, await connection.http.handle_async_request(asked)
            except BaseException as error:
                connection.stream.abort()
                if (
                    last
                    or connection.stream.answered
                    or not isinstance(error, _HUNG_UP)
                    or isinstance(error, GpuflowError)
                ):
                    raise
        raise AssertionError("the second try returns or raises")

    def _address(self, target: httpcore.URL) -> httpcore.URL:
        """What the request line names: a plain request that goes through a proxy says the whole URL."""
        if self._proxy is None or target.scheme != b"http":
            return target
        whole = b"http://" + target.host + b":%d" % (target.port or 80) + target.target
        return httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=whole)

    def give_back(self, connection: _Connection) -> None:
        """Keep the connection if its response was read to the end; else close it."""
        usable = (
            connection.http.is_idle() and not connection.http.has_expired()
        )  # expired: the server hung up, or goes on
        if usable and not _has_more(connection) and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.stream.abort()

    async def aclose(self) -> None:
        while self._idle:
            self._idle.pop().stream.abort()

    def _take(self, origin: httpcore.Origin) -> _Connection | None:
        expired = [connection for connection in self._idle if connection.http.has_expired()]
        for connection in expired:
            self._idle.remove(connection)
            connection.stream.abort()
        for connection in self._idle:
            if connection.http.can_handle_request(origin):
                self._idle.remove(connection)
                return connection
        return None

    async def _connect(self, origin: httpcore.Origin) -> _Connection:
        host = origin.host.decode("ascii")
        certificates = self._certificates if origin.scheme == b"https" else None
        if self._proxy is not None:
            stream = await self._proxy.dial(host, origin.port, certificates)
        else:
            addresses = await self._resolver.addresses(host)
            stream = await _dial(host, origin.port, addresses, certificates, self._connect_seconds)
        http = httpcore.AsyncHTTP11Connection(origin, stream, keepalive_expiry=_KEEPALIVE_SECONDS)
        return _Connection(http, stream)


@dataclass(frozen=True, slots=True, eq=False)
class _Connection:
    http: httpcore.AsyncHTTP11Connection
    stream: _MeteredStream


class _Body(httpx.AsyncByteStream):
    def __init__(self, transport: _PinnedTransport, connection: _Connection, response: httpcore.Response) -> None:
        self._transport = transport
        self._connection = connection
        self._response = response
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._response.aclose()
        finally:
            self._transport.give_back(self._connection)


class _MeteredStream(httpcore.AsyncNetworkStream):
    """Counts what is read: a request begins with a write, after it the head may take 64 KiB, then the body its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left = MAX_HEAD_BYTES
        self._part = "head"
        self.answered = False  # since the last request

    def allow(self, num_bytes: int) -> None:
        self._left, self._part = num_bytes, "body"

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left <= 0:
            raise FetchFailed(f"the response's {self._part} takes more bytes on the wire than it may")
        try:
            async with asyncio.timeout(timeout):
                data = await self._reader.read(min(max_bytes, self._left))
        except TimeoutError as error:
            raise FetchFailed(f"nothing came for {timeout} s") from error
        self._left -= len(data)
        self.answered |= bool(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._left, self._part, self.answered = MAX_HEAD_BYTES, "head", False
        self._writer.write(buffer)
        async with asyncio.timeout(timeout):
            await self._writer.drain()

    async def tunnel(self, host: str, port: int, login: list[tuple[bytes, bytes]]) -> None:
        """Have a proxy connect this stream to ``host``."""
        lines = [f"CONNECT {host}:{port} HTTP/1.1".encode("ascii"), f"Host: {host}:{port}".encode("ascii")]
        lines += [name + b": " + value for name, value in login]
        self._writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = head.split(b" ", 2)[1:2]
        if status != [b"200"]:
            raise FetchFailed(f"the egress proxy does not connect: status {status!r}")

    async def encrypted(self, certificates: SSLContext, host: str) -> _MeteredStream:
        """The same stream, encrypted, once the certificate was found to be for ``host``."""
        await self._writer.start_tls(certificates, server_hostname=host)
        return self

    def get_extra_info(self, info: str) -> object:
        """``is_readable`` is what httpcore asks of an idle connection: true when the server has hung up, or sends
        something that nobody asked for, which would be taken for the next answer."""
        if info == "is_readable":
            return self._reader.at_eof() or bool(self._reader._buffer)  # type: ignore[attr-defined]
        return self._writer.get_extra_info(info)

    def abort(self) -> None:
        """Close at once, without a farewell and without waiting: no cancellation can come in between."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        self.abort()


class _Proxy:
    """The operator's egress proxy. It looks the names up and dials them: which addresses are allowed is its business,
    while schemes, ports and domains are still checked here."""

    def __init__(self, policy: FetchPolicy, resolver: Resolver) -> None:
        url = httpx.URL(policy.proxy or "")
        self._host, self._port = url.host, url.port or 80
        self._seconds = policy.connect_seconds
        self._resolver = resolver
        login = base64.b64encode(unquote_to_bytes(url.userinfo))
        self.login = [(b"Proxy-Authorization", b"Basic " + login)] if login else []

    async def dial(self, host: str, port: int, certificates: SSLContext | None) -> _MeteredStream:
        """A connection to ``host`` through the proxy; by ``CONNECT`` where it is to be encrypted."""
        addresses = await self._resolver.operators_addresses(self._host)
        stream = await _dial(self._host, self._port, addresses, None, self._seconds)
        if certificates is None:
            return stream
        try:
            async with asyncio.timeout(self._seconds):
                await stream.tunnel(f"[{host}]" if ":" in host else host, port, self.login)
                return await stream.encrypted(certificates, host)
        except BaseException:
            stream.abort()
            raise


def _has_more(connection: _Connection) -> bool:
    """Whether bytes came behind the answer: they would be taken for the next one's."""
    state = getattr(connection.http, "_h11_state", None)  # httpcore tells nobody else
    return state is None or bool(state.trailing_data[0])


async def _dial(
    host: str, port: int, addresses: list[str], certificates: SSLContext | None, seconds: float
) -> _MeteredStream:
    """Connect to one of the checked addresses; ``host`` is what the certificate must be for."""
    ends = time.monotonic() + seconds
    failure: Exception | None = None
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share = max(0.0, ends - time.monotonic()) / left  # a silent address leaves time for the next
        try:
            async with asyncio.timeout(share):
                dialled = await _connected_socket(address, port)
            break
        except OSError as error:
            failure = error
    else:
        raise FetchFailed(f"{host}: no address answers on port {port}") from failure
    try:
        async with asyncio.timeout(max(0.0, ends - time.monotonic())):
            name = host if certificates else None
            return _MeteredStream(*await asyncio.open_connection(sock=dialled, ssl=certificates, server_hostname=name))
    except BaseException:
        dialled.close()
        raise


async def _connected_socket(address: str, port: int) -> socket.socket:
    dialled = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        dialled.setblocking(False)
        await asyncio.get_running_loop().sock_connect(dialled, (address, port))
    except BaseException:
        dialled.close()
        raise
    return dialled


def _ssl_context() -> SSLContext:
    """Certificates of ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` where the operator set them, else certifi's."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextmanager
def _translated(host: str) -> Iterator[None]:
    try:
        yield
    except GpuflowError:
        raise
    except Exception as error:  # httpcore, h11, anyio and ssl each have their own tree, and none covers all of it
        raise FetchFailed(f"{host}: {type(error).__name__}: {error}") from error
