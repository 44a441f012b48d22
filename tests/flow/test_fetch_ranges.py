"""Large bodies in parts: put together right, from one version, and from no server that lies about them."""

from __future__ import annotations

import asyncio
import random

import pytest

from gpuflow.config import FetchPolicy
from gpuflow.errors import FetchFailed, GpuflowError, InvalidOptions, TooLarge
from tests.flow.range_server import HEAD, range_of, serves
from tests.flow.raw_server import LIMIT, OPEN, Server, fetch, serving

WHOLE = random.Random(1).randbytes(50_000)
POLICY = FetchPolicy(**OPEN, timeout_ms=5_000, range_bytes=8_000)


def _fetched(policy: FetchPolicy = POLICY, **server: object) -> tuple[bytes, list[bytes]]:
    async def run() -> tuple[bytes, list[bytes]]:
        server_of: list[Server] = []
        async with serving(serves(server_of, **({"whole": WHOLE} | server))) as running:  # type: ignore[arg-type]
            server_of.append(running)
            return (await fetch(running.url, policy)).data, running.heads

    return asyncio.run(run())


@pytest.mark.parametrize("size", [1, 7_999, 8_000, 8_001, 16_000, 50_000])
def test_a_body_comes_in_parts_and_is_put_together(size: int) -> None:
    data, heads = _fetched(whole=WHOLE[:size])
    assert data == WHOLE[:size]
    assert sorted(found for head in heads if (found := range_of(head))) == [
        (first, 7_999 if first == 0 else min(first + 8_000, size) - 1) for first in range(0, size, 8_000)
    ]
    assert all(b'if-range: "v1"' in head.lower() for head in heads[1:])


def test_a_server_without_parts_is_read_whole() -> None:
    data, heads = _fetched(ranges=False)
    assert (data, len(heads)) == (WHOLE, 1)


@pytest.mark.parametrize("etag", ['W/"v1"', "", "v1"])
def test_without_a_strong_version_all_comes_at_once(etag: str) -> None:
    data, heads = _fetched(etag=etag)
    assert data == WHOLE
    assert [range_of(head) for head in heads] == [(0, 7_999), None]


def test_without_the_option_no_part_is_asked_for() -> None:
    data, heads = _fetched(FetchPolicy(**OPEN))
    assert (data, [range_of(head) for head in heads]) == (WHOLE, [None])


def test_a_whole_beyond_the_limit_is_too_large_after_its_first_head() -> None:
    with pytest.raises(TooLarge):
        _fetched(whole=bytes(LIMIT + 1))


LIES = {
    "does not say which part": b"",
    "says another part": b"Content-Range: bytes 1-8000/50000\r\n",
    "says more than was asked for": b"Content-Range: bytes 0-9999/50000\r\n",
    "ends before it begins": b"Content-Range: bytes 5-1/50000\r\n",
    "is longer than the whole": b"Content-Range: bytes 0-7999/100\r\n",
    "does not say the whole": b"Content-Range: bytes 0-7999/*\r\n",
    "counts in something else": b"Content-Range: items 0-7999/50000\r\n",
    "says two parts": b"Content-Type: multipart/byteranges; boundary=x\r\n",
    "says a number of forty digits": b"Content-Range: bytes 0-7999/" + b"9" * 40 + b"\r\n",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_server_that_lies_about_its_first_part_fails(lie: bytes) -> None:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b'ETag: "v1"\r\n' + lie + b"Content-Length: 8000\r\n\r\n" + WHOLE[:8_000])

    async def run() -> None:
        async with serving(handler) as server:
            with pytest.raises(FetchFailed):
                await fetch(server.url, POLICY)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["version", "whole", "short", "range", "error", "hangs up", "silence"])
def test_a_later_part_that_is_wrong_fails_the_whole_and_leaves_no_task(how: str) -> None:
    async def run() -> None:
        server_of: list[Server] = []
        good = serves(server_of, WHOLE)

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            wanted = range_of(server_of[0].heads[-1])
            assert wanted is not None
            first, last = wanted[0], min(wanted[1], 49_999)
            if first != 24_000:
                await good(reader, writer)
                return
            said = f"Content-Range: bytes {first}-{last}/50000\r\n".encode()
            body = WHOLE[first : last + 1]
            if how == "hangs up":
                raise ConnectionResetError
            if how == "silence":
                await asyncio.Event().wait()
            if how == "whole":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + WHOLE)
            elif how == "error":
                writer.write(b"HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n")
            elif how == "version":
                writer.write(HEAD + said + b'ETag: "v2"\r\nContent-Length: 8000\r\n\r\n' + body)
            elif how == "range":
                writer.write(
                    HEAD + b'Content-Range: bytes 0-7999/50000\r\nETag: "v1"\r\nContent-Length: 8000\r\n\r\n' + body
                )
            else:
                writer.write(HEAD + said + b'ETag: "v1"\r\nContent-Length: 7000\r\n\r\n' + body[:7_000])

        async with serving(handler) as server:
            server_of.append(server)
            with pytest.raises(GpuflowError) as raised:
                await fetch(server.url, FetchPolicy(**OPEN, timeout_ms=1_000, read_seconds=0.5, range_bytes=8_000))
            assert raised.value.code == "media_fetch_failed"
            others = asyncio.all_tasks() - server.tasks - {asyncio.current_task()}
            assert not others

    asyncio.run(run())


def test_a_size_of_parts_that_is_none_is_refused() -> None:
    for size in (0, -1, 4_095):
        with pytest.raises(InvalidOptions, match="range_bytes"):
            FetchPolicy(range_bytes=size)
