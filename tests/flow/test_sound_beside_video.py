"""The sound of a video beside its frames: one source, fetched once, two results that are released together or apart."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from gpuflow.config import AudioOptions, ImageOptions, Limits, Options, VideoOptions
from gpuflow.errors import (
    GpuflowError,
    InvalidOptions,
    LeaseExpired,
    LimitExceeded,
    NoSuchStream,
    SlabExhausted,
)
from gpuflow.flow.flow import Flow
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Features, Frames, Media, Waveform
from gpuflow.transfer import Publisher, Reader
from tests.cancelling import cancel_load_after
from tests.flow.audio_files import chirp, noise, with_ffmpeg, with_languages
from tests.waiting import PATIENT, wait_until

RATE = 48_000
SPOKEN = with_ffmpeg(noise(1.0, RATE, 2), RATE, "mp4", "aac", video=True)
SILENT = with_ffmpeg(None, 0, "mp4", "", video=True)
EMPTY = with_ffmpeg(np.zeros((2, 0), np.float32), RATE, "matroska", "pcm_s16le", video=True)
TWO = with_languages({"eng": noise(0.5, RATE), "deu": chirp(0.5, RATE, 2)}, RATE, "mp4", "aac")
SOUND = AudioOptions(sample_rate=16_000)
BOTH = VideoOptions(num_frames=4, audio=SOUND)


def taken(flow: SyncFlow, data: bytes, options: Options) -> Any:
    """What the options make of the bytes, as arrays."""
    with flow.load(data, options=options) as media:
        return media.numpy().copy()


@pytest.mark.parametrize(
    "sound", [AudioOptions(), SOUND, AudioOptions(features="whisper-80"), AudioOptions(start_seconds=0.25, mono=False)]
)
def test_frames_and_sound_are_those_that_two_loads_give(sound: AudioOptions, flow: SyncFlow) -> None:
    with flow.load(SPOKEN, options=VideoOptions(num_frames=4, audio=sound)) as media:
        assert isinstance(media, Frames)
        assert isinstance(media.audio, Waveform if sound.features is None else Features)
        assert np.array_equal(media.numpy(), taken(flow, SPOKEN, VideoOptions(num_frames=4)))
        assert np.array_equal(media.audio.numpy(), taken(flow, SPOKEN, sound))
        assert media.audio.content_hash == media.content_hash
        assert media.audio.fallback == media.fallback
        assert media.audio.stages == media.stages[-len(media.audio.stages) :]
        assert len(media.stages) > len(media.audio.stages) > 0


def test_features_of_a_preset_have_the_sound_beside_them_too(flow: SyncFlow) -> None:
    options = VideoOptions(num_frames=4, preset="qwen2.5-vl", audio=AudioOptions(features="whisper-128"))
    with flow.load(SPOKEN, options=options) as media:
        assert isinstance(media, Features)
        assert isinstance(media.audio, Features)
        assert media.audio.shape[0] == 128
        assert "input_features" not in media  # each has its own names


def test_options_as_json_ask_for_sound(flow: SyncFlow) -> None:
    wanted = {"num_frames": 2, "audio": {"sample_rate": 16_000}}
    with flow.load(SPOKEN, options=wanted, modality="video") as media:
        assert media.audio is not None
        assert media.audio.shape[0] == 1
    with pytest.raises(InvalidOptions):
        flow.load(SPOKEN, options={"audio": {"rate": 1}}, modality="video")


def test_nothing_that_was_not_asked_for_is_loaded(flow: SyncFlow) -> None:
    with flow.load(SPOKEN, options=VideoOptions(num_frames=2)) as media:
        assert media.audio is None
        assert flow.slab.statistics().live_leases == 1


@pytest.mark.parametrize("data", [SILENT, EMPTY], ids=["no track", "an empty track"])
def test_a_clip_without_sound_is_loaded_and_has_none(data: bytes, flow: SyncFlow) -> None:
    with flow.load(data, options=BOTH) as media:
        assert media.audio is None
        assert media.shape[0] == 4
        assert flow.slab.statistics().live_leases == 1


def test_a_stream_that_is_named_must_be_there(flow: SyncFlow) -> None:
    for stream, channels in (("eng", 1), ("deu", 2), (1, 2), (None, 1)):
        sound = AudioOptions(stream=stream, mono=False)
        with flow.load(TWO, options=VideoOptions(num_frames=1, audio=sound)) as media:
            assert media.audio is not None
            assert media.audio.shape[0] == channels
            assert media.audio.metadata.stream == channels - 1  # type: ignore[union-attr]
            assert media.audio.metadata.num_streams == 2  # type: ignore[union-attr]
    for data, stream in ((TWO, "fra"), (TWO, 2), (SILENT, 0), (SILENT, "eng")):
        with pytest.raises(NoSuchStream):
            flow.load(data, options=VideoOptions(num_frames=1, audio=AudioOptions(stream=stream)))
    assert flow.slab.statistics().live_leases == 0


def test_each_is_released_with_the_video_or_before(flow: SyncFlow) -> None:
    media = flow.load(SPOKEN, options=BOTH)
    assert media.audio is not None
    assert flow.slab.statistics().live_leases == 2
    media.audio.release()
    assert flow.slab.statistics().live_leases == 1
    assert media.numpy().shape[0] == 4
    with pytest.raises(LeaseExpired):
        media.audio.numpy()
    media.release()
    media.release()
    assert flow.slab.statistics().live_leases == 0
    with flow.load(SPOKEN, options=BOTH) as media:
        pass
    assert flow.slab.statistics().live_leases == 0


@pytest.mark.parametrize(
    ("sound", "limits", "error"),
    [
        (AudioOptions(start_seconds=100.0), None, InvalidOptions),
        (AudioOptions(features="no such"), None, InvalidOptions),
        (AudioOptions(), {"max_audio_seconds": 0.5}, LimitExceeded),
        (AudioOptions(), {"max_audio_channels": 1}, LimitExceeded),
    ],
)
def test_sound_that_fails_leaves_no_frames_behind(
    sound: AudioOptions, limits: dict[str, Any] | None, error: type[GpuflowError], flow: SyncFlow
) -> None:
    with pytest.raises(error):
        flow.load(SPOKEN, options=VideoOptions(num_frames=4, audio=sound), limits=limits)
    wait_until(lambda: flow.slab.statistics().live_leases == 0)


def test_sound_for_which_there_is_no_room_leaves_no_frames_behind() -> None:
    limits = Limits(deadline_seconds=0.5)
    with SyncFlow(device="cpu", slab_bytes="256KiB", limits=limits) as small:
        with small.load(SPOKEN, options=VideoOptions(num_frames=1)) as held:
            with pytest.raises((SlabExhausted, LimitExceeded)):
                small.load(SPOKEN, options=VideoOptions(num_frames=1, audio=AudioOptions(mono=False)))
            assert held.numpy().shape[0] == 1
        assert small.slab.statistics().live_leases == 0


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_cancelling_at_many_points_leaves_no_lease(isolation: Any) -> None:
    async def run() -> None:
        async with Flow(device="cpu", slab_bytes="64MiB", workers=2, isolation=isolation, limits=PATIENT) as flow:
            (await flow.load(SPOKEN, options=BOTH)).release()
            for steps in (0, 1, 3, 8, 30, 100, 300, 1_000):
                await cancel_load_after(steps, flow.load(SPOKEN, options=BOTH))
            await asyncio.to_thread(wait_until, lambda: flow.slab.statistics().live_leases == 0)
            with await flow.load(SPOKEN, options=BOTH) as media:
                assert media.audio is not None

    asyncio.run(run())


def test_a_stream_of_many_releases_both_of_what_nobody_took(flow: SyncFlow) -> None:
    async def run() -> None:
        outcomes = flow.flow.stream([SPOKEN, SILENT, b"no clip", SPOKEN], options=BOTH, ordered=True)
        found = [outcome async for outcome in outcomes]
        assert [outcome.media is not None and outcome.media.audio is not None for outcome in found] == [
            True,
            False,
            False,
            True,
        ]
        assert isinstance(found[2].error, GpuflowError)
        for outcome in found:
            if outcome.media is not None:
                outcome.media.release()
        left = flow.flow.stream([SPOKEN] * 6, options=BOTH, max_in_flight=6)
        async for outcome in left:
            assert outcome.media is not None
            outcome.media.release()
            break
        await left.aclose()  # type: ignore[attr-defined]

    asyncio.run_coroutine_threadsafe(run(), flow._loop).result(60.0)
    wait_until(lambda: flow.slab.statistics().live_leases == 0)


def test_chunks_of_frames_refuse_sound(flow: SyncFlow) -> None:
    with pytest.raises(InvalidOptions, match="frames alone"):
        list(flow.frames(SPOKEN, options=BOTH))


def test_a_publisher_publishes_the_video_and_the_sound_each_by_itself(flow: SyncFlow) -> None:
    with flow.load(SPOKEN, options=BOTH) as media, Publisher(flow.slab) as publisher, Reader() as reader:
        assert media.audio is not None
        for one in (media, media.audio):
            descriptor = publisher.publish(one)
            assert [spec.name for spec in one.specs] == [spec.name for spec in descriptor.specs]
            with reader.read(descriptor, timeout_seconds=10.0) as copy:
                assert isinstance(copy, Media)
                assert copy.audio is None
                assert np.array_equal(copy.numpy(), one.numpy())


def test_sound_of_an_image_is_no_option() -> None:
    with pytest.raises(InvalidOptions):
        ImageOptions.from_mapping({"audio": {}})
