"""Bodies that are decoded while they come: from servers on loopback that stop in the middle until a test lets them go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from gpuflow.codecs.base import MediaType
from gpuflow.codecs.video.progressive import open_growing
from gpuflow.codecs.video.source import PacketSource
from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import CorruptMedia
from gpuflow.flow.context import Deadline
from gpuflow.flow.flow import Flow
from gpuflow.media import FrameChunk, Frames
from tests.flow.clips import decode_all, make_clip
from tests.flow.coming import ALL, CLIP, HEAD, PICTURES, check, faststart, stops_at, take
from tests.flow.edge_clips import moov_first
from tests.flow.raw_server import LOOPBACK, serving
from tests.flow.test_load_video import CLIPS


@pytest.mark.parametrize("length", ["announced", "until the connection ends"])
def test_chunks_come_before_the_last_byte_does(length: str) -> None:
    async def run() -> None:
        go_on, kept = asyncio.Event(), list[FrameChunk]()
        handler = stops_at(CLIP, len(CLIP) * 3 // 5, go_on, head=None if length == "announced" else HEAD + b"\r\n")
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
            serving(stops_at(CLIP, len(CLIP) * 4 // 5, go_on)) as server,
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
            serving(stops_at(data, len(data) - 1, go_on)) as server,
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
            serving(stops_at(CLIP, len(CLIP) - 1, go_on)) as server,
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


def _lying(codec: str) -> bytes:
    """The sample table calls the 35th picture one at which decoding may begin, in place of the 31st."""
    clip = CLIP if codec == "libx264" else moov_first(make_clip(codec, 120))
    at = clip.find(b"stss")
    entries = [int.from_bytes(clip[at + 12 + 4 * place : at + 16 + 4 * place], "big") for place in range(4)]
    assert entries == [1, 31, 61, 91]
    return clip[: at + 16] + (35).to_bytes(4, "big") + clip[at + 20 :]


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9", "libsvtav1"])
def test_a_keyframe_that_is_none_is_found_out_and_all_of_it_decides(codec: str) -> None:
    lying = _lying(codec)
    expected = decode_all(lying)

    async def run() -> None:
        go_on = asyncio.Event()
        async with (
            serving(stops_at(lying, len(lying) * 3 // 5, go_on)) as server,
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


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_keyframes_that_are_none_are_not_chosen_once_that_is_known(codec: str) -> None:
    lying, go_on = _lying(codec), asyncio.Event()
    go_on.set()

    async def run(chunk: int) -> tuple[int, ...]:
        shown: tuple[int, ...] = ()
        async with (
            serving(stops_at(lying, len(lying), go_on)) as server,
            Flow(device="cpu", slab_bytes="64MiB", fetch=LOOPBACK) as flow,
        ):
            async for part in flow.frames(server.url, chunk=chunk, options=VideoOptions(keyframes=True)):
                with part:
                    shown += part.metadata.frame_indices
        return shown

    assert asyncio.run(run(4)) == (0, 30, 60, 90)
    with pytest.raises(CorruptMedia, match="the frames are others than the header said"):
        asyncio.run(run(1))
