"""A server on loopback that sends exactly what a test wants, and a fetch from it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gpuflow.config import FetchPolicy, Limits
from gpuflow.fetch import Fetcher
from gpuflow.media import Blob, Source

OPEN: dict[str, Any] = {
    "allow_private_networks": ("127.0.0.0/8", "::1/128"),
    "allow_direct_ip": True,
    "allow_direct_port": True,
    "allowed_schemes": ("http", "https"),
}
LOOPBACK = FetchPolicy(**OPEN, timeout_ms=10_000)
BRIEF = FetchPolicy(**OPEN, timeout_ms=400, read_seconds=0.3)
LIMIT = 100_000
LIMITS = Limits(max_image_bytes=LIMIT)
BODY = bytes(range(256)) * 16
OK = b"HTTP/1.1 200 OK\r\nContent-Type: Image/PNG; charset=x\r\n"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A raw server on loopback that runs one handler a request, and what it saw."""

    handler: Handler
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    url: str = ""
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    requested: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                self.requested.set()
                await self.handler(reader, writer)
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(
    handler: Handler, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(handler, host, tls)
    listener = await asyncio.start_server(server.serve, host, 0, ssl=tls)
    name = "localhost" if tls else host
    server.url = f"http{'s' if tls else ''}://{name}:{listener.sockets[0].getsockname()[1]}/a.png?signature=s3cret"
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted connections are closed in the loop's next turn


def sends(*parts: bytes) -> Handler:
    """Answer with these bytes and hang up."""

    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await writer.drain()
        raise ConnectionResetError

    return handler


def keeps_sending(head: bytes, part: bytes, *, pause_seconds: float = 0.0) -> Handler:
    """Answer with the head and then the same bytes for ever."""

    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    return handler


def falls_silent(head: bytes) -> Handler:
    """Answer with these bytes and then nothing, with the connection open."""

    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await asyncio.Event().wait()

    return handler


def stays_open(body: bytes, headers: bytes = b"") -> Handler:
    """Answer well and wait for the next request."""

    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    return handler


def redirects(location: str, *, status: int = 302) -> Handler:
    head = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 1000000\r\n\r\n"
    return falls_silent(head.encode())


async def fetch(url: str, policy: FetchPolicy = LOOPBACK) -> Blob:
    async with Fetcher(policy, LIMITS) as fetcher:
        return await fetcher.fetch(Source.of(url, modality="image"))


def fetch_from(handler: Handler, policy: FetchPolicy = LOOPBACK) -> Blob:
    async def run() -> Blob:
        async with serving(handler) as server:
            return await fetch(server.url, policy)

    return asyncio.run(run())
