"""What a server may do to whoever fetches from it: each behaviour ends within its limit, and the event loop goes on."""

from __future__ import annotations

import asyncio
import random
import resource
import time

import pytest

from gpuflow.config import FetchPolicy
from gpuflow.errors import GpuflowError
from tests.flow.raw_server import (
    LIMIT,
    OK,
    OPEN,
    Handler,
    falls_silent,
    fetch,
    keeps_sending,
    redirects,
    sends,
    serving,
    stays_open,
)
from tests.tally import Tally

POLICY = FetchPolicy(**OPEN, timeout_ms=1_500, read_seconds=0.5)
LAG_SECONDS = 0.05
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
_RNG = random.Random(9)


def _drips(head: bytes, body: bytes, *, pause_seconds: float) -> Handler:
    """One byte at a time."""

    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in head + body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(pause_seconds)
        raise ConnectionResetError

    return handler


def _resets(beginning: bytes) -> Handler:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        await writer.drain()
        writer.transport.abort()
        raise ConnectionResetError

    return handler


HOSTILE: dict[str, Handler] = {
    "says nothing": falls_silent(b""),
    "hangs up": sends(),
    "resets": _resets(b""),
    "half a status line": sends(b"HTTP/1."),
    "half a head, then silence": falls_silent(OK),
    "half a head, then reset": _resets(OK),
    "drips its head": _drips(OK + b"Content-Length: 4\r\n\r\n", b"abcd", pause_seconds=0.05),
    "drips its body": _drips(b"", OK + b"Content-Length: 9000\r\n\r\n" + bytes(9000), pause_seconds=0.01),
    "drips for ever below the read limit": keeps_sending(OK + b"\r\n", b"x", pause_seconds=0.3),
    "a head of one header for ever": keeps_sending(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 100),
    "headers for ever": keeps_sending(b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n"),
    "tiny headers for ever": keeps_sending(b"HTTP/1.1 200 OK\r\n", b"a:\r\n"),
    "informational answers for ever": keeps_sending(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints for ever": keeps_sending(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "an endless body": keeps_sending(OK + b"\r\n", bytes(65_536)),
    "an endless chunked body": keeps_sending(CHUNKED, b"10000\r\n" + bytes(65_536) + b"\r\n"),
    "chunks of one byte for ever": keeps_sending(CHUNKED, b"1\r\nx\r\n"),
    "chunks of no byte, then more": keeps_sending(CHUNKED, b"0\r\n"),
    "a chunk extension for ever": keeps_sending(CHUNKED + b"5;", b"name=value;"),
    "a chunk size for ever": keeps_sending(CHUNKED, b"0"),
    "trailers for ever": keeps_sending(CHUNKED + b"1\r\nx\r\n0\r\n", b"X-Trailer: value\r\n"),
    "a negative chunk": sends(CHUNKED, b"-5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk of 2^64": sends(CHUNKED, b"ffffffffffffffff\r\nabc"),
    "a chunk cut short": sends(CHUNKED, b"10\r\nabc"),
    "a length far beyond the limit": falls_silent(OK + b"Content-Length: 99999999999\r\n\r\n"),
    "a length of forty digits": falls_silent(OK + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n"),
    "a negative length": falls_silent(OK + b"Content-Length: -1\r\n\r\n"),
    "a length in words": falls_silent(OK + b"Content-Length: many\r\n\r\n"),
    "two lengths": falls_silent(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"),
    "a length and chunks": falls_silent(OK + b"Content-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    "less than it announced": sends(OK, b"Content-Length: 100\r\n\r\nabc"),
    "less than it announced, then silence": falls_silent(OK + b"Content-Length: 100\r\n\r\nabc"),
    "a gzip bomb": sends(OK, b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00"),
    "a brotli bomb": sends(OK, b"Content-Encoding: br\r\nContent-Length: 4\r\n\r\nabcd"),
    "gzip twice": sends(OK, b"Content-Encoding: gzip, gzip\r\nContent-Length: 4\r\n\r\nabcd"),
    "a redirect to itself": redirects("/a.png"),
    "a redirect to nowhere": sends(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
    "a redirect to a long place": redirects("/" + "a" * 60_000),
    "a redirect with nonsense": redirects("http://[::1"),
    "a redirect to a script": redirects("javascript:alert(1)"),
    "status 000": sends(b"HTTP/1.1 000 OK\r\n\r\n"),
    "status 99999": sends(b"HTTP/1.1 99999 OK\r\n\r\n"),
    "HTTP/0.9": sends(b"just the body"),
    "another protocol": sends(b"220 mail.example ESMTP\r\n"),
    "a TLS alert": sends(b"\x15\x03\x01\x00\x02\x02\x28"),
    "random bytes": sends(_RNG.randbytes(4096)),
    "random bytes for ever": keeps_sending(b"", _RNG.randbytes(65_536)),
    "NUL bytes for ever": keeps_sending(b"", bytes(65_536)),
    "newlines for ever": keeps_sending(b"", b"\r\n" * 1000),
    "a switch of protocols": falls_silent(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
    "an error page for ever": keeps_sending(b"HTTP/1.1 500 No\r\n\r\n", bytes(65_536)),
    "not found": sends(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "a partial answer that was not asked for": sends(
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/9\r\nContent-Length: 4\r\n\r\nabcd"
    ),
    "more than the limit by one byte": stays_open(bytes(LIMIT + 1)),
}  # fmt: skip


async def _lags(until: asyncio.Task[object]) -> list[float]:
    """How much later than asked for the loop comes back, measured all the time."""
    lags = []
    while not until.done():
        asked = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - asked - 0.001)
    return lags


@pytest.mark.parametrize("behaviour", HOSTILE)
def test_a_hostile_server_ends_within_its_limit(behaviour: str, tally: Tally) -> None:
    async def run() -> tuple[object, float, list[float]]:
        async with serving(HOSTILE[behaviour]) as server:
            started = time.perf_counter()
            fetching: asyncio.Task[object] = asyncio.create_task(fetch(server.url, POLICY))
            lags = await _lags(fetching)
            return fetching.exception(), time.perf_counter() - started, lags

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error, seconds, lags = asyncio.run(run())
    assert isinstance(error, GpuflowError), error
    assert error.http_status < 500
    assert seconds < 1.5 + 1.0
    p99 = sorted(lags)[int(0.99 * (len(lags) - 1))]
    assert p99 < LAG_SECONDS
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < 16 << 20
    public = str(error.to_dict())
    assert not any(secret in public for secret in ("127.0.0.1", "s3cret", "http", "Error", "0x7f"))
    tally("hostile servers", cases=1, worst_seconds=seconds, worst_lag_ms=1000 * p99)
