"""MP4s whose tables of samples do not say what their packets are: in this process and in a worker the same comes out.

Seeded. ``GPUFLOW_FUZZ_TABLES=20000`` for a long run, ``GPUFLOW_FUZZ_SEED`` for another.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpuflow import SyncFlow
from gpuflow.config import VideoOptions
from gpuflow.errors import GpuflowError
from gpuflow.media import Frames
from tests.flow.clips import decode_all, make_clip
from tests.flow.edge_clips import moved, mux, packets_of
from tests.flow.test_load_video import open_source
from tests.tally import Tally

INPUTS = int(os.environ.get("GPUFLOW_FUZZ_TABLES", "300"))
SEED = int(os.environ.get("GPUFLOW_FUZZ_SEED", "0"))
TABLES = (b"stss", b"ctts", b"stsc", b"stco", b"elst", b"stts", b"stsz")
B_PICTURES = {"b_strategy": "0", "sc_threshold": "1000000000"}  # always two
CLIPS: dict[str, dict[str, Any]] = {
    "mpeg4": {"codec": "mpeg4", "options": B_PICTURES},
    "h264": {"codec": "libx264"},
    "hevc": {"codec": "libx265"},
}


@pytest.fixture(scope="module")
def flows() -> Iterator[tuple[SyncFlow, SyncFlow]]:
    """One that decodes here, and one that decodes in a worker."""
    with (
        SyncFlow(device="cpu", slab_bytes="64MiB") as here,
        SyncFlow(device="cpu", slab_bytes="64MiB", workers=1, isolation="process") as apart,
    ):
        yield here, apart


def workers_ended(flow: SyncFlow) -> int:
    counted = flow.flow.counters.snapshot()
    return sum(number for name, number in counted.items() if "crashed" in name or "killed" in name)


def with_keyframe(data: bytes, number: int) -> bytes:
    """The clip with its second sync sample said to be the packet ``number``."""
    out, at = bytearray(data), data.index(b"stss")
    struct.pack_into(">I", out, at + 16, number + 1)
    return bytes(out)


@pytest.mark.parametrize("name", CLIPS)
def test_a_keyframe_that_is_none_changes_no_frame_in_either_mode(name: str, flows: tuple[SyncFlow, SyncFlow]) -> None:
    clip = make_clip(gop=12, **CLIPS[name])
    expected = decode_all(clip)
    for number in (7, 8, 9, 10):  # both B pictures and what they lie between
        lying = with_keyframe(clip, number)
        for wanted in ((number - 1,), (number,), (number + 2,), tuple(range(0, 60, 7))):
            for flow in flows:
                with flow.load(lying, options=VideoOptions(indices=wanted, strict=True)) as frames:
                    for place, index in enumerate(wanted):
                        np.testing.assert_array_equal(frames.numpy()[place], expected[index], err_msg=f"frame {index}")
    assert workers_ended(flows[1]) == 0


@pytest.mark.parametrize("name", ["mpeg4", "hevc"])  # of H.264, libavformat looks itself
def test_a_packet_that_is_no_intra_picture_is_no_keyframe(name: str) -> None:
    clip = make_clip(gop=12, **CLIPS[name])
    assert keys(clip) == claimed_keys(clip)
    for number in (7, 8, 9):
        lying = with_keyframe(clip, number)
        assert number in claimed_keys(lying)
        assert keys(lying) == claimed_keys(lying) - {number}


def keys(data: bytes) -> set[int]:
    """Packets at which decoding may begin."""
    return {position for position, row in enumerate(open_source(data).demuxed.rows) if row.key}


def claimed_keys(data: bytes) -> set[int]:
    """Packets that the container calls keyframes."""
    return {position for position, packet in enumerate(packets_of(data)) if packet.is_keyframe}


def _tables(data: bytes) -> list[tuple[int, int]]:
    """Where the bodies of the tables lie."""
    places = []
    for name in TABLES:
        at = data.find(name)
        if at > 0:
            places.append((at + 4, at - 4 + struct.unpack_from(">I", data, at - 4)[0]))
    return places


def damaged(data: bytes, rng: random.Random) -> bytes:
    """With a few bytes of its tables changed."""
    out = bytearray(data)
    first, end = rng.choice(_tables(data))
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(first, end)
        out[place] = rng.choice((0, 1, 2, 0xFF, 0x7F, out[place] ^ 1 << rng.randrange(8), out[place] + 1 & 0xFF))
    return bytes(out)


def outcome(flow: SyncFlow, data: bytes, options: VideoOptions) -> tuple[Any, ...]:
    """All that a caller sees of it: pixels and facts, or the error."""
    try:
        with flow.load(data, modality="video", options=options) as media:
            assert isinstance(media, Frames)
            return media.metadata, media.numpy().tobytes()
    except GpuflowError as error:
        return type(error).__name__, error.code


def chunks(flow: SyncFlow, data: bytes, options: VideoOptions) -> tuple[Any, ...]:
    """Likewise of a clip that is taken in chunks."""
    told: list[Any] = []
    try:
        for chunk in flow.frames(data, chunk=3, options=options):
            with chunk:
                told += [chunk.metadata, chunk.numpy().tobytes()]
    except GpuflowError as error:
        return type(error).__name__, error.code
    return tuple(told)


def test_a_damaged_table_has_the_same_outcome_in_both_modes_and_ends_no_worker(
    flows: tuple[SyncFlow, SyncFlow], tally: Tally
) -> None:
    rng = random.Random(SEED)
    small: dict[str, Any] = {"num_frames": 30, "gop": 8, "size": (64, 48)}
    seeds = [make_clip(**small, **arguments) for arguments in CLIPS.values()]
    seeds += [mux(packets_of(make_clip(**small)), change=moved(-5))]
    asked = [
        VideoOptions(num_frames=5), VideoOptions(indices=(0, 11, 3)), VideoOptions(keyframes=True),
        VideoOptions(num_frames=30, strict=True), VideoOptions(timestamps_seconds=(0.2, 0.9), layout="TCHW"),
    ]  # fmt: skip
    outcomes: Counter[str] = Counter()
    for number in range(INPUTS):
        data, options = damaged(rng.choice(seeds), rng), rng.choice(asked)
        way = chunks if number % 4 == 0 else outcome
        here, apart = (way(flow, data, options) for flow in flows)
        assert here == apart, f"seed {SEED}, input {number}: {here[0]} and {apart[0]}"
        outcomes[here[0] if isinstance(here[0], str) else "decoded"] += 1
    assert workers_ended(flows[1]) == 0
    assert sum(outcomes.values()) == INPUTS
    assert outcomes["decoded"] > INPUTS // 4
    assert len(outcomes) > 1
    tally("damaged sample tables, in process and in a worker alike", cases=INPUTS, decoded=outcomes["decoded"])
