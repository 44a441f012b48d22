"""A server on loopback that serves parts of a body, as good ones do."""

from __future__ import annotations

import asyncio
import re

from tests.flow.raw_server import Handler, Server

HEAD = b"HTTP/1.1 206 Partial Content\r\nContent-Type: video/mp4\r\n"


def range_of(head: bytes) -> tuple[int, int] | None:
    """First and last byte that a request asks for."""
    match = re.search(rb"\r\nrange: bytes=(\d+)-(\d+)\r\n", head.lower())
    return (int(match[1]), int(match[2])) if match else None


def serves(server_of: list[Server], whole: bytes, *, etag: str = '"v1"', ranges: bool = True) -> Handler:
    """``server_of``: the server itself, once it runs. Without ``ranges`` it sends everything."""

    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wanted = range_of(server_of[0].heads[-1]) if ranges else None
        if wanted is None:
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole
            )
            return
        first, last = wanted[0], min(wanted[1], len(whole) - 1)
        said = f"Content-Range: bytes {first}-{last}/{len(whole)}\r\nETag: {etag}\r\n".encode()
        body = whole[first : last + 1]
        writer.write(HEAD + said + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    return handler
