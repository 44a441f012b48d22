"""Clips with a few damaged pictures: what came out is given, and what did not is named."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest
import torch

from gpuflow import SyncFlow
from gpuflow.codecs.base import MediaType
from gpuflow.config import VideoOptions
from gpuflow.errors import CorruptMedia
from gpuflow.flow.context import LoadContext
from gpuflow.flow.video import load_video_features
from gpuflow.media import Blob, Features, FrameChunk, Frames, VideoMetadata
from gpuflow.presets.video import video_preset
from gpuflow.transfer import Descriptor, Publisher, Reader
from tests.flow.clips import decode_all, make_clip, spoiled

MP4 = MediaType("mp4", "video", "mov")
WHOLE = make_clip("mjpeg", num_frames=10, pixel_format="yuvj420p")
RIGHT = np.stack(decode_all(WHOLE))


def damaged(*numbers: int) -> bytes:
    """The clip with these pictures overwritten: MJPEG's do not depend on each other."""
    out = bytearray(WHOLE)
    with av.open(io.BytesIO(WHOLE), format="mov") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for number in numbers:
        packet = packets[number]
        assert packet.pos is not None
        out[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    return bytes(out)


def concealed(codec: str) -> bytes:
    """Two groups of pictures; in the first, bits of a few packets are turned, and FFmpeg conceals what it cannot decode."""
    options = {"b_strategy": "0"} if codec == "mpeg4" else {}
    clip = make_clip(codec, num_frames=48, gop=24, size=(320, 192), options=options)
    out, rng = bytearray(clip), random.Random(6)
    with av.open(io.BytesIO(clip), format="mov") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[9:12]:
        assert packet.pos is not None
        for _ in range(4):
            out[packet.pos + rng.randrange(packet.size // 3, packet.size)] ^= 1 << rng.randrange(8)
    return bytes(out)


@pytest.fixture(scope="module", params=["none", "process"])
def flow(request: pytest.FixtureRequest) -> Iterator[SyncFlow]:
    with SyncFlow(device="cpu", slab_bytes="64MiB", workers=1, isolation=request.param) as made:
        yield made


def test_frames_that_came_out_close_the_gaps_in_any_order(flow: SyncFlow) -> None:
    options = VideoOptions(indices=(8, 3, 2, 7, 4, 3, 8))
    with flow.load(damaged(3, 7), options=options) as frames:
        assert isinstance(frames, Frames)
        facts = frames.metadata
        assert (facts.frame_indices, facts.missing_indices, len(frames)) == ((8, 2, 4, 8), (3, 7), 4)
        assert facts.timestamps_seconds == (8 / 30, 2 / 30, 4 / 30, 8 / 30)
        assert facts.keyframes == (True,) * 4
        assert frames.tensor.shape == (4, 96, 160, 3)
        np.testing.assert_array_equal(frames.numpy(), RIGHT[[8, 2, 4, 8]])
        assert frames.lease.sealed


@pytest.mark.parametrize("options", [{"layout": "TCHW", "dtype": "float32"}, {"size": (48, 64)}])
def test_gaps_are_closed_in_every_form(options: dict[str, Any], flow: SyncFlow) -> None:
    wanted = VideoOptions(indices=(0, 1, 2, 5, 9), **options)
    some = VideoOptions(indices=(1, 5, 9), **options)
    with flow.load(damaged(0, 2), options=wanted) as frames, flow.load(WHOLE, options=some) as expected:
        assert frames.dtype == expected.dtype
        np.testing.assert_array_equal(frames.numpy(), expected.numpy())


def test_nothing_is_missing_from_a_whole_clip(flow: SyncFlow) -> None:
    with flow.load(WHOLE, options=VideoOptions(num_frames=10, strict=True)) as frames:
        assert isinstance(frames.metadata, VideoMetadata)
        assert frames.metadata.missing_indices == ()


def test_strict_names_the_damaged_frames_instead(flow: SyncFlow) -> None:
    for preset in (None, "llava-onevision"):
        with pytest.raises(CorruptMedia, match="8 of 10 wanted frames were decoded; damaged: 3, 7"):
            flow.load(damaged(3, 7), options=VideoOptions(num_frames=10, strict=True, preset=preset))
    assert flow.slab.statistics().leased_bytes == 0


def test_a_clip_of_which_no_wanted_frame_is_left_is_corrupt(flow: SyncFlow) -> None:
    for preset in (None, "llava-onevision"):
        with pytest.raises(CorruptMedia):
            flow.load(damaged(3, 7), options=VideoOptions(indices=(3, 7, 3), preset=preset))
    assert flow.slab.statistics().leased_bytes == 0


@pytest.mark.parametrize("name", ["qwen3-vl", "llava-onevision"])
def test_features_are_those_of_the_frames_that_came_out(name: str, flow: SyncFlow) -> None:
    wanted = VideoOptions(indices=(0, 3, 5, 7, 9), preset=name)
    some = VideoOptions(indices=(0, 5, 9), preset=name)
    with flow.load(damaged(3, 7), options=wanted) as features, flow.load(WHOLE, options=some) as expected:
        assert isinstance(features, Features)
        assert isinstance(expected, Features)
        assert list(features) == list(expected)
        assert all(torch.equal(features[tensor], expected[tensor]) for tensor in features)
        facts: Any = features.metadata.source
        assert (facts.frame_indices, facts.missing_indices) == ((0, 5, 9), (3, 7))


def test_a_preset_that_needs_more_frames_than_came_out_says_so(context: LoadContext) -> None:
    assert video_preset("qwen3-vl").temporal_patch == 2
    with pytest.raises(CorruptMedia, match="damaged: 3; this preset needs 2 frames or more; there is 1"):
        load_video_features(Blob(damaged(3), "hash"), MP4, VideoOptions(indices=(3, 4), preset="qwen3-vl"), context)


def test_what_came_out_is_read_by_others_without_the_gaps(flow: SyncFlow) -> None:
    with (
        flow.load(damaged(3, 7), options=VideoOptions(indices=(2, 3, 4))) as frames,
        Publisher(flow.slab, transports="inproc") as publisher,
        Reader(slab_bytes="8MiB", device="cpu", transports="inproc") as reader,
    ):
        sent = Descriptor.from_bytes(publisher.publish(frames).to_bytes())
        with reader.read(sent) as received:
            assert received.metadata == frames.metadata
            np.testing.assert_array_equal(received.numpy(), RIGHT[[2, 4]])


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_whose_damage_was_concealed_are_given_and_named(codec: str, flow: SyncFlow) -> None:
    clip = concealed(codec)
    spoilt, expected = spoiled(clip), decode_all(clip)
    assert 3 <= len(spoilt) <= 24
    assert max(spoilt) < 24  # a keyframe ends it
    with flow.load(clip, options=VideoOptions(num_frames=48)) as frames:
        assert isinstance(frames, Frames)
        assert frames.metadata.corrupt_indices == tuple(sorted(spoilt))
        assert (frames.metadata.missing_indices, len(frames)) == ((), 48)
        np.testing.assert_array_equal(frames.numpy(), np.stack(expected))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("options", [{}, {"size": (48, 80)}, {"preset": "llava-onevision"}])
def test_strict_refuses_frames_whose_damage_was_concealed(codec: str, options: dict[str, Any], flow: SyncFlow) -> None:
    clip = concealed(codec)
    spoilt = spoiled(clip)
    whole = tuple(sorted({*range(48)} - spoilt))
    with flow.load(clip, options=VideoOptions(indices=whole[::4], strict=True, **options)) as media:
        facts: Any = media.metadata
        assert getattr(facts, "source", facts).corrupt_indices == ()
    one = max(spoilt)
    with pytest.raises(CorruptMedia, match=f"3 of 4 wanted frames were decoded; damaged: {one}"):
        flow.load(clip, options=VideoOptions(indices=(*whole[-2:], one, 0), strict=True, **options))
    assert flow.slab.statistics().leased_bytes == 0


def test_features_name_the_frames_whose_damage_was_concealed(flow: SyncFlow) -> None:
    clip = concealed("libx264")
    last = max(spoiled(clip))
    with flow.load(clip, options=VideoOptions(indices=(0, last, 30, 40), preset="llava-onevision")) as features:
        facts: Any = features.metadata
        assert (facts.source.corrupt_indices, facts.source.missing_indices) == ((last,), ())


def test_chunks_name_theirs_and_strict_ends_them(flow: SyncFlow) -> None:
    clip = concealed("libx264")
    spoilt = spoiled(clip)
    named: list[int] = []
    for chunk in flow.frames(clip, chunk=10, options=VideoOptions(num_frames=48)):
        with chunk:
            assert isinstance(chunk.metadata, VideoMetadata)
            assert set(chunk.metadata.corrupt_indices) <= set(chunk.metadata.frame_indices)
            named += chunk.metadata.corrupt_indices
    assert named == sorted(spoilt)
    strict = flow.frames(clip, chunk=10, options=VideoOptions(num_frames=48, strict=True))
    with pytest.raises(CorruptMedia, match="damaged"):
        list(map(FrameChunk.release, strict))
    assert flow.slab.statistics().leased_bytes == 0
