"""Packets handed by workers that fail, hang, are killed or lie: one clip fails, nothing else, and nothing is kept."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import av
import numpy as np
import pytest

from gpuflow.codecs.video.plan import PacketRow, Segment
from gpuflow.codecs.video.stream import max_payload_bytes
from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import (
    CorruptMedia,
    DeadlineExceeded,
    DecoderCrashed,
    GpuflowError,
    LimitExceeded,
    UnsupportedFormat,
)
from gpuflow.flow import video
from gpuflow.flow.context import Deadline
from gpuflow.flow.flow import Flow
from gpuflow.isolation.decoding import InProcess
from gpuflow.isolation.packets import HandedStream, Handing
from gpuflow.isolation.plausible import check_pieces, check_plan, check_table
from gpuflow.isolation.pool import DecoderPool, Quarantine
from gpuflow.isolation.remote import Isolated
from gpuflow.isolation.wire import Disconnected, Payloads, Piece, Planned, Table
from gpuflow.media import Blob, Frames
from gpuflow.memory import Slab
from tests.cancelling import cancel_load_after
from tests.flow.clips import decode_all, make_clip
from tests.flow.elementary import FromPackets, Kept
from tests.flow.test_load_video import kind_of, open_source
from tests.waiting import wait_until

LIMITS = Limits()
CLIP = make_clip(num_frames=40, gop=10)


@pytest.fixture
def pool() -> Iterator[tuple[DecoderPool, Isolated]]:
    with Slab("16MiB", shared=True) as slab:
        with DecoderPool(slab, workers=1) as made:
            wait_until(lambda: len(made.pids) == 1)
            yield made, Isolated(made, slab)
        assert slab.statistics().live_leases == 0


def _load(
    isolated: Isolated,
    decoder: FromPackets,
    *,
    deadline: Deadline | None = None,
    data: bytes = CLIP,
    indices: tuple[int, ...] = (5, 35),
    limits: Limits = LIMITS,
) -> Any:
    with (
        isolated.begin(
            Blob(data, "d" * 64), kind_of("mp4"), "video", limits=limits, deadline=deadline or Deadline(60.0)
        ) as opened,
        opened.clip() as clip,
    ):
        clip.plan(indices)
        kept = Kept(clip.info)
        clip.decode(kept, decoder)
    return kept.frames


def _right(isolated: Isolated) -> bool:
    frames, expected = _load(isolated, FromPackets()), decode_all(CLIP)
    return all(np.array_equal(frames[index], expected[index]) for index in (5, 35))


def _raises(error: BaseException) -> Callable[[int], None]:
    def before(position: int) -> None:
        raise error

    return before


def test_a_decoder_that_fails_midway_leaves_worker_and_slab_for_the_next(pool: tuple[DecoderPool, Isolated]) -> None:
    made, isolated = pool
    before = made.pids
    for error in (CorruptMedia("the decoder failed"), UnsupportedFormat("another size"), RuntimeError("a fault")):
        with pytest.raises(type(error)):
            _load(isolated, FromPackets(before=_raises(error)))
        assert _right(isolated)
    assert made.pids == before


def test_a_deadline_midway_ends_the_clip_alone(pool: tuple[DecoderPool, Isolated]) -> None:
    made, isolated = pool
    deadline = Deadline(60.0)
    with pytest.raises(DeadlineExceeded):
        _load(isolated, FromPackets(before=lambda position: deadline.cancel()), deadline=deadline)
    assert _right(isolated)
    assert made.counters.snapshot().get("gpuflow_decode_workers_killed_total", 0) == 0


@pytest.mark.parametrize("data", [CLIP, make_clip(num_frames=3, size=(1024, 1024), gop=1, options={"qp": "0"})])
def test_a_worker_killed_midway_fails_that_clip_alone(data: bytes, pool: tuple[DecoderPool, Isolated]) -> None:
    made, isolated = pool

    def kill(position: int) -> None:
        if made.pids:
            os.kill(made.pids[0], signal.SIGKILL)

    with pytest.raises(DecoderCrashed):
        _load(isolated, FromPackets(before=kill), data=data, indices=(0, 2) if data is not CLIP else (5, 35))
    with pytest.raises(DecoderCrashed, match="not tried again"):
        _load(isolated, FromPackets(), data=data)
    made.quarantine = Quarantine(600.0)
    assert _right(isolated)


def test_a_worker_that_stops_midway_is_killed_at_the_deadline(pool: tuple[DecoderPool, Isolated]) -> None:
    made, isolated = pool
    (victim,) = made.pids
    deadline = Deadline(60.0)

    def stop(position: int) -> None:
        if made.pids == [victim]:
            os.kill(victim, signal.SIGSTOP)
            deadline.limit(0.3)

    with pytest.raises(DeadlineExceeded):
        _load(isolated, FromPackets(before=stop), deadline=deadline)
    assert _right(isolated)
    assert made.pids != [victim]
    assert made.counters.snapshot()["gpuflow_decode_workers_killed_total"] == 1


def test_limits_and_damage_are_the_workers_errors_here(pool: tuple[DecoderPool, Isolated]) -> None:
    _, isolated = pool
    with pytest.raises(LimitExceeded):
        _load(isolated, FromPackets(), limits=Limits(max_decoded_frames=3))
    with pytest.raises(LimitExceeded):
        _load(isolated, FromPackets(), limits=Limits(max_video_pixels=64))
    with pytest.raises(CorruptMedia):
        _load(isolated, FromPackets(), data=CLIP[: len(CLIP) // 3])
    assert _right(isolated)


def test_headers_that_make_packets_far_larger_than_the_file_are_refused() -> None:
    demuxed = open_source(make_clip("mpeg4", num_frames=4, gop=1)).demuxed
    assert len(list(demuxed.payloads(0, 3))) == 4
    room = max_payload_bytes(demuxed.file_bytes, 1)
    assert list(replace(demuxed, extradata=bytes(room // 2)).payloads(0, 0))
    with pytest.raises(LimitExceeded, match="far more bytes"):
        list(replace(demuxed, extradata=bytes(room)).payloads(0, 0))


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_damaged_clips_end_as_they_do_in_this_process(container: str, pool: tuple[DecoderPool, Isolated]) -> None:
    made, isolated = pool
    before, random = made.pids, np.random.default_rng(11)
    clip = make_clip(num_frames=40, gop=10, container=container)
    ends: list[str] = []
    for number in range(60):
        data = bytearray(clip[: random.integers(len(clip) // 2, len(clip) + 1)])
        for at in random.integers(400, len(data), 1 + number % 5):
            data[at] = random.integers(0, 256)
        here, there = (_end(place, bytes(data), container, number) for place in (InProcess(), isolated))
        assert here == there
        ends.append(here[0])
    assert "frames" in ends
    assert made.pids == before


def _end(place: Any, data: bytes, container: str, number: int) -> tuple[str, ...]:
    """How a clip ends: its error's name, or its packets and frames."""
    deadline = Deadline(60.0)
    decoder = FromPackets()
    try:
        with place.begin(
            Blob(data, f"{number:064d}"), kind_of(container), "video", limits=LIMITS, deadline=deadline
        ) as opened, opened.clip() as clip:  # fmt: skip
            clip.plan([min(index, clip.info.num_frames - 1) for index in (0, 5, 35)])
            kept = Kept(clip.info)
            clip.decode(kept, decoder)
    except (GpuflowError, av.error.FFmpegError, ValueError) as error:
        return (type(error).__name__,)
    return ("frames", repr(decoder.given), *(str(hash(frame.tobytes())) for frame in kept.frames.values()))


def test_cancelling_loads_with_handed_packets_at_many_points_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "choose_decoder", lambda clip, context: (FromPackets(), None))
    options = VideoOptions(num_frames=4)

    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB", workers=2, isolation="process") as flow:
            for steps in (0, 1, 3, 8, 20, 60, 150, 400, 1_000, 3_000):
                await cancel_load_after(steps, flow.load(CLIP, options=options))
            with await flow.load(CLIP, options=options) as frames:
                assert frames.backend == "from-packets"
                expected = decode_all(CLIP)
                assert isinstance(frames, Frames)
                for place, index in enumerate(frames.metadata.frame_indices):
                    np.testing.assert_array_equal(frames.numpy()[place], expected[index])
            pool, slab = flow.decoders, flow.slab
            assert pool is not None
            await asyncio.to_thread(wait_until, lambda: not (slab.statistics().live_leases or pool.busy))

    asyncio.run(run())


# Workers that lie

SEGMENTS = (Segment(0, 9, {0: 0}), Segment(10, 19, {512: 7, 1024: 9}))


@pytest.mark.parametrize(
    "said",
    [
        (),
        SEGMENTS[:1],
        (*SEGMENTS, Segment(20, 30, {7: 11})),
        (SEGMENTS[0], replace(SEGMENTS[1], targets={512: 7, 1024: 7})),
        (SEGMENTS[1], SEGMENTS[0]),
        (SEGMENTS[0], replace(SEGMENTS[1], first=9)),
        (replace(SEGMENTS[0], first=-1), SEGMENTS[1]),
        (SEGMENTS[0], replace(SEGMENTS[1], first=19, last=10)),
        (SEGMENTS[0], replace(SEGMENTS[1], last=10**9)),
        (SEGMENTS[0], replace(SEGMENTS[1], last=40_000)),
    ],
)
def test_a_plan_that_cannot_be_is_not_believed(said: tuple[Segment, ...]) -> None:
    check_plan(Planned(SEGMENTS), {0, 7, 9}, LIMITS)
    with pytest.raises(Disconnected):
        check_plan(Planned(said), {0, 7, 9}, LIMITS)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_table_of_another_length_is_not_believed(count: int) -> None:
    check_table(Table((PacketRow(0, True),) * 2), 2)
    with pytest.raises(Disconnected):
        check_table(Table((PacketRow(0, True),) * count), 2)


GOOD = (Piece(3, 10, True), Piece(4, 5, True), Piece(5, 7, False))


@pytest.mark.parametrize(
    ("pieces", "ended", "begun"),
    [
        (GOOD, True, False),
        ((), False, False),
        ((), True, True),
        ((Piece(2, 10, True),), False, False),
        ((Piece(9, 10, True),), False, False),
        ((Piece(4, 10, True), Piece(3, 10, True)), True, False),
        ((Piece(3, 0, True),), True, False),
        ((Piece(3, -5, True), Piece(3, 9, True)), True, False),
        ((Piece(3, 101, True),), True, False),
        ((Piece(3, 60, True), Piece(4, 60, True)), True, False),
        ((Piece(3, 10, False), Piece(4, 10, True)), True, False),
        ((Piece(4, 10, True),), True, True),
    ],
)
def test_pieces_that_cannot_be_are_not_believed(pieces: tuple[Piece, ...], ended: bool, begun: bool) -> None:
    assert check_pieces(Payloads(GOOD, False), (3, 8), 100, begun=False) == 22
    with pytest.raises(Disconnected):
        check_pieces(Payloads(pieces, ended), (3, 8), 100, begun=begun)


def _stream(*answers: Any, file_bytes: int = 100) -> HandedStream:
    said = iter(answers)
    return HandedStream(lambda order, kind: next(said), np.zeros(1 << 20, np.uint8), 0, file_bytes)


def test_a_worker_that_hands_more_than_the_file_could_hold_is_not_believed() -> None:
    whole_block = Payloads((Piece(0, 1 << 20, True),), False)
    stream = _stream(*[whole_block] * 9)
    with pytest.raises(Disconnected):
        list(stream.payloads(0, 0))


def test_bytes_that_a_worker_changes_after_its_answer_are_not_those_that_are_decoded() -> None:
    block = np.full(64, 1, np.uint8)
    stream = HandedStream(lambda order, kind: Payloads((Piece(0, 8, True), Piece(1, 8, True)), True), block, 0, 100)
    packets = stream.payloads(0, 1)
    assert next(packets) == (0, b"\1" * 8)
    block[:] = 9
    assert next(packets) == (1, b"\1" * 8)


@pytest.mark.parametrize("size", [1, 7, 64, 1_000])
def test_packets_come_through_a_block_of_any_size(size: int) -> None:
    packets = [(position, bytes([position]) * (1 + 37 * position % 90)) for position in range(20)]
    block = np.zeros(size, np.uint8)
    handing = Handing(iter(packets), block, Deadline(30.0))
    stream = HandedStream(lambda order, kind: handing.fill(), block, 0, 4_000)
    assert list(stream.payloads(0, 19)) == packets
