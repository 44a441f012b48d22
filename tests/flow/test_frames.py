"""Clips in chunks: the frames of ``load``, in order, each chunk in its own block, never too many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from blockbuster import blockbuster_ctx
from numpy.typing import NDArray

import gpuflow
from gpuflow.config import VideoOptions
from gpuflow.device import choose
from gpuflow.errors import (
    Closed,
    CorruptMedia,
    DeadlineExceeded,
    GpuflowError,
    InvalidOptions,
    InvalidSource,
    LimitExceeded,
    Overloaded,
    SlabExhausted,
    UnsupportedFormat,
)
from gpuflow.flow.flow import Flow
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import FrameChunk, Frames
from tests.cancelling import cancelled_after
from tests.flow.clips import barcode, decode_all, make_clip
from tests.flow.test_load_video import CLIPS
from tests.waiting import wait_until

CLIP = make_clip(num_frames=120)
PICTURES = decode_all(CLIP)
ALL = VideoOptions(indices=tuple(range(120)))
FRAME_BYTES = 96 * 160 * 3
ISOLATIONS = ["none", "process"]


@pytest.fixture(scope="module", params=ISOLATIONS)
def flow(request: pytest.FixtureRequest) -> Iterator[SyncFlow]:
    with SyncFlow(device="cpu", slab_bytes="128MiB", workers=2, isolation=request.param) as flow:
        yield flow
        wait_until(lambda: flow.slab.statistics().live_leases == 0)


def _collected(flow: SyncFlow, data: bytes, options: VideoOptions, *, chunk: int) -> tuple[list[FrameChunk], list[Any]]:
    """Released chunks, and copies of their frames."""
    chunks, pictures = [], []
    for part in flow.frames(data, chunk=chunk, options=options):
        with part:
            assert len(part) <= chunk
            pictures += [frame.copy() for frame in part.numpy()]
        chunks.append(part)
    return chunks, pictures


@pytest.mark.parametrize(
    "name",
    [
        "h264 open gop",
        "hevc open gop",
        "vp9 without a frame count",
        "mpegts intra refresh",
        "rotated 90",
    ],
)
def test_chunks_are_bit_equal_to_decoding_all_frame_by_frame(name: str, flow: SyncFlow) -> None:
    data = make_clip(**CLIPS[name])
    expected = decode_all(data, CLIPS[name].get("container", "mp4"))
    options = VideoOptions(indices=tuple(range(len(expected))))
    chunks, pictures = _collected(flow, data, options, chunk=16)
    np.testing.assert_array_equal(np.stack(pictures), np.stack(expected))
    assert [len(part) for part in chunks] == [16] * (len(expected) // 16) + [len(expected) % 16][: len(expected) % 16]


@pytest.mark.parametrize("chunk", [1, 7, 200])
@pytest.mark.parametrize(
    "indices", [tuple(range(0, 120, 7)), (1, 1, 1, 2, 60, 119), (5, 40, 5), tuple(range(119, 0, -17))], ids=str
)
def test_any_order_and_repeats_come_as_they_are_wanted(indices: tuple[int, ...], chunk: int, flow: SyncFlow) -> None:
    chunks, pictures = _collected(flow, CLIP, VideoOptions(indices=indices), chunk=chunk)
    assert sum((part.metadata.frame_indices for part in chunks), ()) == indices
    for picture, index in zip(pictures, indices, strict=True):
        np.testing.assert_array_equal(picture, PICTURES[index])


@pytest.mark.parametrize(
    "options",
    [
        VideoOptions(num_frames=50),
        VideoOptions(fps=7.0, max_frames=20),
        VideoOptions(timestamps_seconds=(0.0, 1.51, 3.99)),
        VideoOptions(num_frames=9, start_seconds=1.0, end_seconds=2.0, size=(48, 64), layout="TCHW", dtype="float32"),
    ],
    ids=["num_frames", "fps", "timestamps", "resized"],
)
def test_chunks_together_are_what_load_gives(options: VideoOptions, flow: SyncFlow) -> None:
    chunks, pictures = _collected(flow, CLIP, options, chunk=4)
    with flow.load(CLIP, options=options) as whole:
        assert isinstance(whole, Frames)
        np.testing.assert_array_equal(np.stack(pictures), whole.numpy())
        facts = whole.metadata
        assert sum((part.metadata.frame_indices for part in chunks), ()) == facts.frame_indices
        assert sum((part.metadata.timestamps_seconds for part in chunks), ()) == facts.timestamps_seconds
        for part in chunks:
            assert (part.dtype, part.shape[1:], part.backend) == (whole.dtype, whole.shape[1:], whole.backend)
            assert part.content_hash == whole.content_hash
            assert part.metadata.num_frames == facts.num_frames
            assert part.metadata.source_fps == facts.source_fps
            assert part.metadata.duration_seconds == facts.duration_seconds


def test_a_chunk_says_which_it_is_and_how_it_was_made(flow: SyncFlow) -> None:
    chunks, _ = _collected(flow, CLIP, VideoOptions(num_frames=10), chunk=4)
    assert [(part.index, part.is_first, part.is_last) for part in chunks] == [
        (0, True, False),
        (1, False, False),
        (2, False, True),
    ]
    assert [stage.name for stage in chunks[0].stages] == ["fetch", "probe", "decode"]
    assert [stage.name for stage in chunks[1].stages] == ["decode"]
    assert all(isinstance(part, Frames) and part.kind == "frames" for part in chunks)
    assert all(part.fallback is None for part in chunks)


@pytest.mark.parametrize("gop", [10, 250], ids=["many segments", "one segment"])
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_never_more_chunks_than_so_many_ahead_are_in_memory(gop: int, isolation: Any) -> None:
    clip = make_clip(num_frames=120, gop=gop)
    slots = [3 * FRAME_BYTES] if isolation == "process" else []  # a block that frames of workers go through
    with SyncFlow(device="cpu", slab_bytes="128MiB", isolation=isolation) as flow:
        for number, part in enumerate(flow.frames(clip, chunk=8, ahead=2, options=ALL)):
            held = min(3, 15 - number)
            wait_until(lambda held=held: flow.slab.statistics().live_leases >= held)  # type: ignore[misc]
            assert flow.slab.statistics().live_leases <= 3 + len(slots)
            with part:
                assert [barcode(frame) for frame in part.numpy()] == list(range(8 * number, 8 * number + 8))
        most = 3 * _rounded(8 * FRAME_BYTES) + sum(map(_rounded, slots))
        assert flow.slab.statistics().peak_leased_bytes <= most
        wait_until(lambda: flow.slab.statistics().live_leases == 0)


def test_a_frame_that_is_wanted_again_and_again_begins_no_chunks_ahead() -> None:
    indices = (5, *range(1, 20), *(0, 5) * 10)
    with SyncFlow(device="cpu", slab_bytes="128MiB", limits={"deadline_seconds": 10.0}) as flow:
        seen: list[int] = []
        for part in flow.frames(CLIP, chunk=1, ahead=1, options=VideoOptions(indices=indices)):
            with part:
                seen += [barcode(frame) for frame in part.numpy()]
                assert flow.slab.statistics().live_leases <= 2
        assert tuple(seen) == indices
        assert flow.slab.statistics().peak_leased_bytes <= 2 * _rounded(FRAME_BYTES)
        wait_until(lambda: flow.slab.statistics().live_leases == 0)


def _rounded(nbytes: int) -> int:
    return -(-nbytes // 65_536) * 65_536


def test_leaving_the_loop_frees_what_was_not_taken(flow: SyncFlow) -> None:
    chunks = flow.frames(CLIP, chunk=8, options=ALL)
    kept = next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    wait_until(lambda: flow.slab.statistics().live_leases == 1)
    assert barcode(kept.numpy()[7]) == 7
    kept.release()


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_cancelling_at_many_points_frees_all_memory_and_all_permits(isolation: Any) -> None:
    async def taken(flow: Flow, count: int) -> None:
        async with aclosing(flow.frames(CLIP, chunk=8, options=ALL)) as chunks:  # type: ignore[type-var]
            async for part in chunks:
                with part:
                    count -= 1
                    if count == 0:
                        return

    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB", workers=2, isolation=isolation) as flow:
            await taken(flow, 100)
            for steps in (0, 1, 2, 3, 5, 8, 13, 30, 60, 100, 200, 400):
                await cancelled_after(steps, taken(flow, 100))
            for count in (1, 2, 3):
                await taken(flow, count)
            await asyncio.to_thread(wait_until, lambda: flow.slab.statistics().live_leases == 0)
            for media in await asyncio.gather(*(flow.load(CLIP, options=ALL) for _ in range(4))):
                media.release()

    before = threading.active_count()
    asyncio.run(run())
    assert threading.active_count() <= before


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_streams_that_wait_for_their_consumer_hold_up_nobody(isolation: Any) -> None:
    """Three streams and a load between their chunks, on a flow with one worker."""

    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB", workers=1, isolation=isolation) as flow:
            numbers: list[list[int]] = [[], [], []]
            streams = [flow.frames(CLIP, chunk=20, ahead=1, options=ALL) for _ in numbers]
            for _ in range(6):
                for stream, seen in zip(streams, numbers, strict=True):
                    with await anext(stream) as part:
                        seen += [barcode(frame) for frame in part.numpy()]
                with await flow.load(CLIP, options=VideoOptions(indices=(3,))) as frames:
                    np.testing.assert_array_equal(frames.numpy()[0], PICTURES[3])
            assert numbers == [list(range(120))] * 3
            for stream in streams:
                assert await anext(stream, None) is None

    asyncio.run(run())


def test_the_event_loop_is_never_blocked() -> None:
    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB") as flow:
            with blockbuster_ctx("gpuflow"):
                async for part in flow.frames(CLIP, chunk=16, options=ALL):
                    part.release()

    asyncio.run(run())


def _damaged(first: int) -> bytes:
    """The clip with nothing but zeros in its data from frame ``first`` on."""
    import io

    import av

    with av.open(io.BytesIO(CLIP)) as source:
        at = [packet.pos for packet in source.demux(video=0) if packet.size][first]
    end = CLIP.find(b"moov") - 4
    assert at is not None
    assert end > at
    return CLIP[:at] + bytes(end - at) + CLIP[end:]


def test_damaged_frames_are_left_out_and_named_as_in_load(flow: SyncFlow) -> None:
    data = _damaged(47)
    chunks, pictures = _collected(flow, data, ALL, chunk=10)
    with flow.load(data, options=ALL) as whole:
        assert isinstance(whole, Frames)
        facts = whole.metadata
        assert facts.missing_indices
        np.testing.assert_array_equal(np.stack(pictures), whole.numpy())
    assert sum((part.metadata.missing_indices for part in chunks), ()) == facts.missing_indices
    assert sum((part.metadata.frame_indices for part in chunks), ()) == facts.frame_indices
    assert [part.index for part in chunks] == list(range(12))
    assert [part.is_last for part in chunks] == [False] * 11 + [True]
    assert chunks[-1].shape == (0, 96, 160, 3)


def test_with_strict_an_error_comes_after_the_chunks_before_it_which_stay_valid(flow: SyncFlow) -> None:
    strict = VideoOptions(indices=tuple(range(120)), strict=True)
    chunks = flow.frames(_damaged(60), chunk=20, options=strict)
    first, second, third = (next(chunks) for _ in range(3))
    with pytest.raises(CorruptMedia):
        next(chunks)
    wait_until(lambda: flow.slab.statistics().live_leases == 3)
    for part, start in ((first, 0), (second, 20), (third, 40)):
        with part:
            np.testing.assert_array_equal(part.numpy(), np.stack(PICTURES[start : start + 20]))


def test_a_clip_of_which_nothing_comes_out_is_an_error_at_the_end(flow: SyncFlow) -> None:
    end: list[FrameChunk] = []
    chunks = flow.frames(_damaged(60), chunk=20, options=VideoOptions(indices=tuple(range(60, 110))))
    with pytest.raises(CorruptMedia):
        end.extend(chunks)
    assert [len(part) for part in end] == [0, 0, 0]
    for part in end:
        part.release()


def test_the_deadline_holds_and_the_consumers_time_is_no_decode_time(flow: SyncFlow) -> None:
    chunks = flow.frames(CLIP, chunk=4, ahead=1, options=ALL, limits={"deadline_seconds": 1.5, "video_seconds": 1.0})
    held = [next(chunks)]
    ended = threading.Event()
    ended.wait(1.1)  # longer than decoding may take, without the consumer's time
    held.append(next(chunks))
    ended.wait(0.6)
    with pytest.raises(DeadlineExceeded):
        held.extend(chunks)
    for part in held:
        part.release()


def test_limits_are_held_before_anything_is_decoded(flow: SyncFlow) -> None:
    for limits in ({"max_output_bytes": FRAME_BYTES * 7}, {"max_video_frames": 119}, {"max_decoded_frames": 119}):
        with pytest.raises(LimitExceeded):
            next(flow.frames(CLIP, chunk=8, options=ALL, limits=limits))
    with pytest.raises(gpuflow.TooLarge):
        next(flow.frames(CLIP, options=ALL, limits={"max_video_bytes": 1_000}))
    with pytest.raises(DeadlineExceeded):
        next(flow.frames(CLIP, options=ALL, limits={"video_seconds": 1e-6}))


def test_what_is_no_clip_or_no_option_of_one_is_refused(flow: SyncFlow) -> None:
    from gpuflow.demo import samples

    with pytest.raises(UnsupportedFormat, match="video was asked for"):
        next(flow.frames(samples.picture("PNG", width=64, height=48)))
    with pytest.raises(InvalidOptions, match="chunk"):
        flow.frames(CLIP, chunk=0)
    with pytest.raises(InvalidOptions, match="ahead"):
        flow.frames(CLIP, ahead=0)
    with pytest.raises(InvalidOptions):
        flow.frames(CLIP, options={"sample_rate": 16_000})
    with pytest.raises(InvalidSource):
        flow.frames("clip.mp4")
    with pytest.raises(InvalidOptions, match="preset"):
        next(flow.frames(CLIP, options=VideoOptions(preset="qwen2.5-vl")))


def test_two_threads_that_take_at_once_lose_nothing_and_the_second_is_told(flow: SyncFlow) -> None:
    chunks = flow.frames(CLIP, chunk=1, options=VideoOptions(indices=tuple(range(60))))
    taken, refused = list[int](), threading.Event()

    def take() -> None:
        while not refused.is_set():
            try:
                part = next(chunks, None)
            except ValueError:
                refused.set()
            else:
                if part is None:
                    return
                with part:
                    taken.extend(part.metadata.frame_indices)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert refused.is_set()
    for part in chunks:
        with part:
            taken.extend(part.metadata.frame_indices)
    assert sorted(taken) == list(range(60))


def test_blocks_that_the_consumer_keeps_exhaust_the_slab_by_the_deadline() -> None:
    with SyncFlow(device="cpu", slab_bytes="1MiB") as flow:
        held: list[FrameChunk] = []
        chunks = flow.frames(CLIP, chunk=8, options=ALL, limits={"deadline_seconds": 1.0})
        with pytest.raises((SlabExhausted, DeadlineExceeded)):
            held.extend(chunks)
        assert flow.slab.statistics().live_leases >= len(held) == 2
        for part in held:
            part.release()
        wait_until(lambda: flow.slab.statistics().live_leases == 0)


def test_a_stream_counts_among_the_pending_loads() -> None:
    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB", max_pending=1) as flow:
            async with aclosing(flow.frames(CLIP, chunk=8, options=ALL)) as chunks:  # type: ignore[type-var]
                (await anext(chunks)).release()
                with pytest.raises(Overloaded):
                    await flow.load(CLIP)
                with pytest.raises(Overloaded):
                    await anext(flow.frames(CLIP))
            (await flow.load(CLIP)).release()

    asyncio.run(run())


async def _released(chunks: AsyncIterator[FrameChunk]) -> None:
    async for part in chunks:
        part.release()


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_closing_the_flow_ends_its_streams(isolation: Any) -> None:
    async def run() -> None:
        flow = Flow(device="cpu", slab_bytes="64MiB", isolation=isolation)
        chunks = flow.frames(CLIP, chunk=8, options=ALL)
        part = await anext(chunks)
        await flow.aclose()
        part.release()
        with pytest.raises(GpuflowError):
            await _released(chunks)
        with pytest.raises(Closed):
            await anext(flow.frames(CLIP))

    asyncio.run(run())


def test_the_librarys_own_user_gets_chunks_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(CLIP)
    numbers: list[int] = []
    for part in gpuflow.frames(str(tmp_path / "a.mp4"), chunk=5, options={"num_frames": 12}, device="cpu"):
        with part:
            numbers += [barcode(frame) for frame in part.numpy()]
    assert numbers == [0, 11, 22, 32, 43, 54, 65, 76, 87, 97, 108, 119]


def test_a_chunk_can_be_published_as_frames_can(flow: SyncFlow) -> None:
    inproc: tuple[Literal["inproc"]] = ("inproc",)
    with (
        gpuflow.Publisher(flow.slab, transports=inproc) as publisher,
        gpuflow.Reader(slab_bytes="16MiB", device="cpu", transports=inproc) as reader,
    ):
        for part in flow.frames(CLIP, chunk=50, options=ALL):
            with part:
                descriptor = publisher.publish(part, reads=1, ttl_seconds=30.0)
                with reader.read(descriptor) as received:
                    np.testing.assert_array_equal(received.numpy(), part.numpy())
                    assert received.metadata == part.metadata


@pytest.mark.gpu
def test_chunks_on_a_gpu_equal_what_load_gives_there() -> None:
    larger: dict[str, Any] = {"size": (320, 240), "num_frames": 120}
    data = make_clip(**larger)
    with SyncFlow(device=choose("cuda").name, slab_bytes="256MiB") as flow:
        _, pictures = _collected(flow, data, ALL, chunk=16)
        with flow.load(data, options=ALL) as whole:
            expected: NDArray[np.uint8] = whole.numpy()
            np.testing.assert_array_equal(np.stack(pictures), expected)
