"""Which frames of real clips are chosen: keyframes, named samplers, and what servers are told of them."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import pytest

from gpuflow import SyncFlow
from gpuflow.codecs.base import MAX_NOMINAL_FPS, MIN_NOMINAL_FPS
from gpuflow.config import Limits, VideoOptions
from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.flow.context import LoadContext
from gpuflow.flow.video import load_video
from gpuflow.media import Frames
from gpuflow.samplers.table import SAMPLERS
from gpuflow.sampling import choose_indices
from tests.flow.clips import FORMATS, barcode, make_clip
from tests.flow.test_load_video import CLIPS, blob, kind_of, open_source, remux


def key_pictures(data: bytes, container: str) -> tuple[int, ...]:
    """The reference: PyAV's word for every picture that it decodes."""
    with av.open(io.BytesIO(data), format=FORMATS[container]) as source:
        return tuple(number for number, frame in enumerate(source.decode(video=0)) if frame.key_frame)


@pytest.mark.parametrize(
    "name",
    [
        "h264 gop 30", "hevc", "vp8", "vp9 without a frame count", "av1", "mpegts", "avi with b frames", "mjpeg avi",
        "variable rate matroska", "fragmented",
    ],
)  # fmt: skip
def test_keyframes_are_those_that_a_decoder_marks(name: str) -> None:
    container = CLIPS[name].get("container", "mp4")
    data = make_clip(**CLIPS[name])
    assert open_source(data, container).key_indices == key_pictures(data, container)


def test_a_recording_that_begins_between_keyframes_has_those_that_were_decoded() -> None:
    data = remux(make_clip(container="mpegts"), container="mpegts", into="mpegts", drop=7)
    source = open_source(data, "mpegts")
    assert source.sequential
    assert source.key_indices == key_pictures(data, "mpegts")


def choose(data: bytes, context: LoadContext, **options: Any) -> Frames:
    return load_video(blob(data), kind_of("mp4"), VideoOptions(**options), context)


def test_only_keyframes_are_given_where_they_are_asked_for(context: LoadContext) -> None:
    clip = make_clip(num_frames=100, gop=20)
    with choose(clip, context, keyframes=True) as frames:
        assert frames.metadata.frame_indices == (0, 20, 40, 60, 80)
        assert frames.metadata.keyframes == (True,) * 5
        assert [barcode(frame) for frame in frames.numpy()] == [0, 20, 40, 60, 80]
    for options, expected in (
        ({"num_frames": 3}, (0, 40, 80)),
        ({"num_frames": 9}, (0, 20, 40, 60, 80)),
        ({"start_seconds": 0.7, "end_seconds": 2.5}, (40, 60)),
    ):
        with choose(clip, context, keyframes=True, **options) as frames:
            assert frames.metadata.frame_indices == expected
    with choose(clip, context, indices=(20, 21)) as frames:
        assert frames.metadata.keyframes == (True, False)


def test_keyframes_that_are_not_there_or_too_many_are_refused(context: LoadContext) -> None:
    clip = make_clip(num_frames=100, gop=20)
    with pytest.raises(InvalidOptions, match="shows none in this range"):
        choose(clip, context, keyframes=True, start_seconds=0.1, end_seconds=0.5)
    with pytest.raises(InvalidOptions, match="the clip shows 5 keyframes in this range, 9 may be taken"):
        choose(clip, context, keyframes=True, num_frames=9, strict=True)
    with pytest.raises(InvalidOptions, match="keyframes goes with num_frames; got it with fps"):
        VideoOptions(keyframes=True, fps=1.0)
    context.limits = Limits(max_video_frames=2)
    with choose(clip, context, keyframes=True) as frames:
        assert frames.metadata.frame_indices == (0, 80)
    with pytest.raises(InvalidOptions, match="2 may be taken"):
        choose(clip, context, keyframes=True, strict=True)
    with pytest.raises(LimitExceeded, match="3 frames were asked for"):
        choose(clip, context, keyframes=True, num_frames=3)


def test_a_sampler_goes_by_the_containers_rate(context: LoadContext) -> None:
    """Matroska rounds times to milliseconds: by them 60 frames have 30.0003 a second, and 2 s of them 3 frames at 2."""
    clip = make_clip(container="matroska")
    options = VideoOptions(sampler="vllm-qwen2-vl", fps=2.0)
    with load_video(blob(clip), kind_of("matroska"), options, context) as frames:
        facts: Any = frames.metadata
        assert (facts.nominal_fps, facts.sampler) == (30.0, "vllm-qwen2-vl")
        assert facts.source_fps != 30.0
        assert facts.frame_indices == (0, 15, 30, 45)


@pytest.mark.parametrize(("time_base", "step"), [(Fraction(1, 10), 100), (Fraction(1, 1000), 1), (Fraction(1, 500), 1)])
def test_slow_and_fast_clips_have_their_rate(time_base: Fraction, step: int, context: LoadContext) -> None:
    """A time lapse of a frame in ten seconds, and cameras of slow motion."""
    times = [step * number for number in range(20)]
    clip = make_clip(num_frames=20, bframes=0, times=times, time_base=time_base)
    rate = float(1 / (time_base * step))
    with choose(clip, context, num_frames=4) as frames:
        assert frames.metadata.nominal_fps == rate
        assert frames.metadata.source_fps == pytest.approx(rate)
        told = frames.metadata.for_servers()
        assert (told["fps"], told["duration"]) == (rate, pytest.approx(20 / rate))


@pytest.mark.parametrize(("time_base", "step"), [(Fraction(1, 10), 1_010), (Fraction(1, 4000), 1)])
def test_a_rate_beyond_its_bounds_is_none(time_base: Fraction, step: int, context: LoadContext) -> None:
    clip = make_clip(num_frames=12, bframes=0, times=[step * number for number in range(12)], time_base=time_base)
    with choose(clip, context, num_frames=4) as frames:
        assert frames.metadata.nominal_fps == 0.0
        assert frames.metadata.for_servers()["fps"] == frames.metadata.source_fps > 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_sampler_breaks_at_the_ends_of_what_a_rate_may_be(name: str) -> None:
    taken = 0
    for fps in (MIN_NOMINAL_FPS, 0.1, MAX_NOMINAL_FPS):
        for total in (1, 2, 60, 5_000):
            pts = [number / fps for number in range(total)]
            for wish in ({}, {"num_frames": 8}, {"fps": 2.0}, {"fps": 0.05}, {"fps": 240.0}):
                try:
                    options = VideoOptions(sampler=name, **wish)
                    chosen = choose_indices(
                        options, pts_seconds=pts, duration_seconds=total / fps, max_frames=20_000, fps=fps
                    )
                except (InvalidOptions, LimitExceeded):
                    continue
                taken += 1
                assert 1 <= len(chosen) <= 5_001
                assert 0 <= min(chosen) <= max(chosen) < total
    assert taken >= 9


def test_repeats_of_a_sampler_are_given_as_often_as_it_names_them(context: LoadContext) -> None:
    with choose(make_clip(num_frames=75), context, sampler="hf-glm4v") as frames:
        assert frames.metadata.frame_indices == (0, 15, 30, 45, 60, 60)
        assert [barcode(frame) for frame in frames.numpy()] == [0, 15, 30, 45, 60, 60]


def test_servers_are_told_what_their_own_loaders_would_say(context: LoadContext) -> None:
    clip = make_clip()
    with choose(clip, context, sampler="vllm", num_frames=4) as frames:
        assert frames.metadata.for_servers() == {
            "total_num_frames": 60,
            "fps": 30.0,
            "duration": 2.0,
            "video_backend": "gpuflow",
            "frames_indices": [0, 19, 39, 59],
            "do_sample_frames": False,
        }
    with choose(clip, context, num_frames=60) as frames:
        assert frames.metadata.for_servers("opencv")["do_sample_frames"] is True


def test_transformers_reads_what_servers_are_told(context: LoadContext) -> None:
    from transformers.video_utils import VideoMetadata

    with choose(make_clip(), context, sampler="vllm", num_frames=4) as frames:
        told = frames.metadata.for_servers()
        facts = VideoMetadata(**{name: value for name, value in told.items() if name != "do_sample_frames"})
        assert facts.timestamps == pytest.approx(frames.metadata.timestamps_seconds)


def test_choices_are_the_same_in_sandboxed_processes() -> None:
    clip = make_clip(num_frames=100, gop=20)
    found = []
    for isolation in ("none", "process"):
        with SyncFlow(device="cpu", slab_bytes="64MiB", workers=1, isolation=isolation) as flow:
            for options in ({"keyframes": True}, {"sampler": "dynamo", "num_frames": 7}):
                with flow.load(clip, options=VideoOptions(**options)) as frames:
                    found.append((frames.metadata, frames.numpy().tobytes()))
    assert found[:2] == found[2:]
