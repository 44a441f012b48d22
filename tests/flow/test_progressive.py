"""Bodies that are decoded while they come: from servers on loopback that stop in the middle until a test lets them go on."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

import av
import numpy as np
import pytest

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.video.progressive import open_growing
from gpuflow.codecs.video.source import PacketSource
from gpuflow.config import FetchPolicy, Limits, VideoOptions
from gpuflow.errors import DeadlineExceeded, FetchFailed, GpuflowError, LimitExceeded, Overloaded, TooLarge
from gpuflow.flow.context import Deadline
from gpuflow.flow.flow import Flow
from gpuflow.media import FrameChunk, Frames
from tests.flow.clips import decode_all, make_clip
from tests.flow.raw_server import LOOPBACK, OPEN, Handler, serving
from tests.flow.test_load_video import CLIPS
from tests.waiting import wait_until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n"
BRIEF = FetchPolicy(**OPEN, timeout_ms=2_500, read_seconds=0.5)


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


def _stops_at(data: bytes, at: int, go_on: asyncio.Event, *, head: bytes | None = None) -> Handler:
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


@pytest.mark.parametrize("length", ["announced", "until the connection ends"])
def test_chunks_come_before_the_last_byte_does(length: str) -> None:
    async def run() -> None:
        go_on, kept = asyncio.Event(), list[FrameChunk]()
        handler = _stops_at(CLIP, len(CLIP) * 3 // 5, go_on, head=None if length == "announced" else HEAD + b"\r\n")
        async with serving(handler) as server, Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow:
            chunks = flow.frames(server.url, chunk=10, ahead=20, options=ALL)
            await take(chunks, kept, 3)
            assert not go_on.is_set()
            assert kept[0].metadata.num_frames == 120
            assert kept[0].metadata.duration_seconds == 4.0
            go_on.set()
            kept += [part async for part in chunks]
            check(kept, PICTURES)
            with await flow.load(CLIP, options=ALL) as whole:
                assert isinstance(whole, Frames)
                assert [part.content_hash for part in kept] == [None] * 11 + [whole.content_hash]
                assert sum((part.metadata.timestamps_seconds for part in kept), ()) == whole.metadata.timestamps_seconds
            for part in kept:
                part.release()
            assert flow.slab.statistics().live_leases == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "options",
    [
        VideoOptions(num_frames=20),
        VideoOptions(fps=5.0),
        VideoOptions(timestamps_seconds=(0.5, 3.0)),
        VideoOptions(keyframes=True),
    ],
    ids=["num_frames", "fps", "timestamps", "keyframes"],
)
def test_sampling_needs_no_more_than_the_header(options: VideoOptions) -> None:
    async def run() -> None:
        go_on = asyncio.Event()
        async with (
            serving(_stops_at(CLIP, len(CLIP) * 4 // 5, go_on)) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow,
        ):
            chunks = flow.frames(server.url, chunk=1, ahead=50, options=options)
            kept = [await anext(chunks)]
            go_on.set()
            kept += [part async for part in chunks]
            with await flow.load(CLIP, options=options) as whole:
                assert isinstance(whole, Frames)
                assert sum((part.metadata.frame_indices for part in kept), ()) == whole.metadata.frame_indices
                np.testing.assert_array_equal(np.concatenate([part.numpy() for part in kept]), whole.numpy())
            for part in kept:
                part.release()

    asyncio.run(run())


class Bytes:
    """All bytes of a file at once, as ones that come from the first on, and how far they were asked for."""

    in_parts = False

    def __init__(self, data: bytes) -> None:
        self.announced = len(data)
        self.data = data
        self.furthest = 0

    def expect(self, extents: Iterable[tuple[int, int]]) -> None:
        raise AssertionError("opening a clip plans nothing")

    def has(self, first: int, end: int) -> bool:
        return end <= len(self.data)

    def wait(self, first: int, end: int) -> bool:
        self.furthest = max(self.furthest, end)
        return self.has(first, end)

    def read(self, first: int, end: int) -> bytes:
        assert end <= self.furthest
        return self.data[first:end]


def _opened(data: bytes) -> tuple[PacketSource | None, Bytes]:
    body = Bytes(data)
    return open_growing(body, limits=Limits(), deadline=Deadline(30.0)), body


MOVIES = [
    name
    for name, wanted in CLIPS.items()
    if wanted.get("container", "mp4") == "mp4" and wanted.get("codec") != "libsvtav1" and name != "fragmented"
]


@pytest.mark.parametrize("name", MOVIES)
def test_a_clip_that_is_opened_by_its_header_is_the_one_that_all_of_it_gives(name: str) -> None:
    data = faststart(make_clip(**CLIPS[name]))
    source, body = _opened(data)
    whole = PacketSource.open(data, MediaType("mp4", "video", "mov"), limits=Limits(), deadline=Deadline(30.0))
    assert source is not None
    assert body.furthest < len(data)
    assert source.info == whole.info
    assert source.pts_seconds == whole.pts_seconds
    assert source.key_indices == whole.key_indices
    assert source.demuxed.rows == whole.demuxed.rows
    assert [bytes(packet) for packet in source.demuxed.packets] == [bytes(packet) for packet in whole.demuxed.packets]
    indices = range(0, len(whole.pts_seconds), 7)
    wanted = whole.plan(indices, limits=Limits()).segments
    assert source.demuxed.arrival is not None
    assert tuple(map(source.demuxed.arrival.prepared, source.plan(indices, limits=Limits()).segments)) == wanted


def test_an_edit_list_is_known_from_the_header() -> None:
    from tests.flow.test_load_video import remux

    data = faststart(remux(make_clip(), shift=15))
    source, _ = _opened(data)
    assert source is not None
    assert (b"elst" in data, source.info.num_frames) == (True, 45)


UNTOLD: dict[str, Callable[[], bytes]] = {
    "header behind the media": make_clip,
    "fragmented": lambda: make_clip(**CLIPS["fragmented"]),
    "matroska": lambda: make_clip(container="matroska"),
    "webm": lambda: make_clip("libvpx-vp9", container="webm"),
    "mpegts": lambda: make_clip(container="mpegts"),
    "avi": lambda: make_clip("mjpeg", container="avi", pixel_format="yuvj420p"),
    "intra refresh": lambda: faststart(
        make_clip(bframes=0, num_frames=100, options={"x264-params": "intra-refresh=1:keyint=20"})
    ),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_what_its_beginning_does_not_tell_waits_for_all_of_it(name: str) -> None:
    data = UNTOLD[name]()

    async def run() -> None:
        go_on = asyncio.Event()
        options = VideoOptions(indices=tuple(range(0, 60, 3)))
        async with (
            serving(_stops_at(data, len(data) - 1, go_on)) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow,
        ):
            chunks = flow.frames(server.url, chunk=5, options=options)
            first = asyncio.ensure_future(anext(chunks))
            await server.requested.wait()
            for _ in range(50):
                await asyncio.sleep(0)
            assert (not first.done()) or name == "intra refresh"
            go_on.set()
            kept = [await first, *[part async for part in chunks]]
            with await flow.load(data, options=options) as whole:
                np.testing.assert_array_equal(np.concatenate([part.numpy() for part in kept]), whole.numpy())
            for part in kept:
                part.release()

    asyncio.run(run())


def test_decode_workers_are_given_all_of_it() -> None:
    async def run() -> None:
        go_on = asyncio.Event()
        async with (
            serving(_stops_at(CLIP, len(CLIP) - 1, go_on)) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK, isolation="process") as flow,
        ):
            chunks = flow.frames(server.url, chunk=60, options=ALL)
            first = asyncio.ensure_future(anext(chunks))
            await server.requested.wait()
            assert not first.done()
            go_on.set()
            kept = [await first, *[part async for part in chunks]]
            check(kept, PICTURES)
            for part in kept:
                part.release()

    asyncio.run(run())


def test_a_keyframe_that_is_none_is_found_out_and_all_of_it_decides() -> None:
    """The sample table calls the 35th picture one at which decoding may begin, in place of the 31st."""
    at = CLIP.find(b"stss")
    entries = [int.from_bytes(CLIP[at + 12 + 4 * place : at + 16 + 4 * place], "big") for place in range(4)]
    assert entries == [1, 31, 61, 91]
    lying = CLIP[: at + 16] + (35).to_bytes(4, "big") + CLIP[at + 20 :]
    expected = decode_all(lying)

    async def run() -> None:
        go_on = asyncio.Event()
        async with (
            serving(_stops_at(lying, len(lying) * 3 // 5, go_on)) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow,
        ):
            chunks = flow.frames(server.url, chunk=10, ahead=20, options=ALL)
            kept = [await anext(chunks)]
            go_on.set()
            kept += [part async for part in chunks]
            check(kept, expected)
            assert [len(part) for part in kept] == [10] * 12
            assert kept[-1].content_hash
            for part in kept:
                part.release()

    asyncio.run(run())


async def _abort(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(CLIP) + CLIP[: len(CLIP) * 3 // 5])
    await writer.drain()
    writer.transport.close()
    raise ConnectionResetError


async def _silence(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(CLIP) + CLIP[: len(CLIP) * 3 // 5])
    await writer.drain()
    await asyncio.Event().wait()


async def _drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(CLIP) + CLIP[: len(CLIP) * 3 // 5])
    for byte in CLIP[len(CLIP) * 3 // 5 :]:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.1)


async def _short(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"\r\n" + CLIP[: len(CLIP) * 3 // 5])
    await writer.drain()
    raise ConnectionResetError


async def _endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"\r\n" + CLIP)
    while True:
        writer.write(bytes(1 << 16))
        await writer.drain()
        await asyncio.sleep(0)


async def _chunked(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    beginning = CLIP[: len(CLIP) * 3 // 5]
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(beginning) + beginning + b"\r\n")
    while True:
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0)


HOSTILE: dict[str, tuple[Handler, type[GpuflowError]]] = {
    "breaks off": (_abort, FetchFailed),
    "falls silent": (_silence, FetchFailed),
    "drips": (_drip, FetchFailed),
    "is shorter than its header says": (_short, GpuflowError),
    "never ends": (_endless, TooLarge),
    "goes on in chunks of one byte": (_chunked, FetchFailed),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_server_fails_within_bounds_and_leaves_earlier_chunks_valid(name: str) -> None:
    handler, expected = HOSTILE[name]

    async def run() -> None:
        limits = {"max_video_bytes": 4 << 20}
        async with serving(handler) as server, Flow(device="cpu", slab_bytes="64MiB", fetch=BRIEF) as flow:
            kept: list[FrameChunk] = []
            loop = asyncio.get_running_loop()
            started = loop.time()
            chunks = flow.frames(server.url, chunk=10, ahead=20, options=ALL, limits=limits)
            with pytest.raises(expected) as raised:
                await take(chunks, kept, 13)
            assert loop.time() - started < 2.5 + 1.5
            assert raised.value.http_status < 500
            assert len(kept) >= 2
            assert not any(part.is_last for part in kept)
            check(kept, PICTURES)
            for part in kept:
                part.release()
            await asyncio.to_thread(wait_until, lambda: flow.slab.statistics().live_leases == 0)
            assert flow._pending_bytes == 0
            (await flow.load(CLIP, options=ALL)).release()

    asyncio.run(run())


def test_leaving_early_ends_the_fetch() -> None:
    async def run() -> None:
        go_on = asyncio.Event()
        async with (
            serving(_stops_at(CLIP, len(CLIP) * 3 // 5, go_on)) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK, workers=1) as flow,
        ):
            async with aclosing(flow.frames(server.url, chunk=10, options=ALL)) as chunks:  # type: ignore[type-var]
                (await anext(chunks)).release()
            assert flow._pending_bytes == 0
            assert {task for task in asyncio.all_tasks() if "receive" in repr(task.get_coro())} == set()
            await asyncio.to_thread(wait_until, lambda: flow.slab.statistics().live_leases == 0)
            (await flow.load(CLIP, options=ALL)).release()

    asyncio.run(run())


def test_a_stream_that_waits_for_bytes_holds_up_nobody() -> None:
    async def run() -> None:
        go_on = asyncio.Event()
        async with (
            serving(_stops_at(CLIP, 100, go_on)) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK, workers=1) as flow,
        ):
            chunks = [flow.frames(server.url, chunk=200, options=ALL) for _ in range(3)]
            waiting = [asyncio.ensure_future(anext(each)) for each in chunks]
            await server.requested.wait()
            for _ in range(3):
                (await flow.load(CLIP, options=ALL)).release()
            assert not any(task.done() for task in waiting)
            go_on.set()
            for part in await asyncio.gather(*waiting):
                check([part], PICTURES)
                part.release()

    asyncio.run(run())


def test_claims_are_refused_as_soon_as_the_header_has_come() -> None:
    huge = bytearray(CLIP)
    at = huge.find(b"avc1", huge.find(b"stsd")) + 28
    huge[at : at + 4] = b"\xff\xff\xff\xff"  # 65,535 x 65,535

    async def run() -> None:
        async with (
            serving(_stops_at(bytes(huge), 20_000, asyncio.Event())) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow,
        ):
            with pytest.raises(LimitExceeded):
                await anext(flow.frames(server.url, options=ALL))

    asyncio.run(run())


def test_waiting_for_bytes_ends_with_the_deadline() -> None:
    async def run() -> None:
        async with (
            serving(_stops_at(CLIP, 100, asyncio.Event())) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow,
        ):
            with pytest.raises(DeadlineExceeded):
                await anext(flow.frames(server.url, limits={"deadline_seconds": 0.2}))

    asyncio.run(run())


def test_bytes_that_come_count_among_the_pending_ones() -> None:
    async def run() -> None:
        limits = Limits(max_pending_bytes=len(CLIP) - 1)
        async with (
            serving(_stops_at(CLIP, len(CLIP), asyncio.Event())) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK, limits=limits) as flow,
        ):
            kept: list[FrameChunk] = []
            with pytest.raises(Overloaded):
                await take(flow.frames(server.url, chunk=10, ahead=20, options=ALL), kept, 13)
            for part in kept:
                part.release()

    asyncio.run(run())
