"""Bodies that come slowly: a clip whose header is first, and a server that stops in the middle until a test lets it go on."""

from __future__ import annotations

import asyncio
import io
import tempfile
from typing import Any

import av
import numpy as np

from gpuflow.config import VideoOptions
from gpuflow.media import FrameChunk
from tests.flow.clips import decode_all, make_clip
from tests.flow.raw_server import Handler

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n"


def faststart(data: bytes) -> bytes:
    """The same packets with the movie header first, by the real muxer, which needs a file for that."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        options = {"movflags": "+faststart"}
        with (
            av.open(io.BytesIO(data)) as source,
            av.open(file.name, "w", format="mp4", options=options) as output,
        ):
            copied = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.size:
                    packet.stream = copied[packet.stream_index]
                    output.mux(packet)
        return file.read()


CLIP = faststart(make_clip(num_frames=120))
PICTURES = decode_all(CLIP)
ALL = VideoOptions(indices=tuple(range(120)))


def stops_at(data: bytes, at: int, go_on: asyncio.Event, *, head: bytes | None = None) -> Handler:
    """Sends the beginning, waits, and sends the rest."""

    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((HEAD + b"Content-Length: %d\r\n\r\n" % len(data) if head is None else head) + data[:at])
        await writer.drain()
        await go_on.wait()
        writer.write(data[at:])
        await writer.drain()
        if head is not None:
            raise ConnectionResetError  # the end is where the connection ends

    return handler


async def take(chunks: Any, kept: list[FrameChunk], count: int) -> None:
    while count:
        kept.append(await anext(chunks))
        count -= 1


def check(chunks: list[FrameChunk], pictures: list[Any], start: int = 0) -> None:
    for part in chunks:
        for picture, index in zip(part.numpy(), part.metadata.frame_indices, strict=True):
            np.testing.assert_array_equal(picture, pictures[index])
    shown = [index for part in chunks for index in part.metadata.frame_indices]
    assert shown == list(range(start, start + len(shown)))
