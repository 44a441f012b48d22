"""When sound is heard: beside its pictures, after packets that are missing, within a section. The reference is what was
encoded, and when."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuflow.codecs.audio import decode_audio
from gpuflow.codecs.pcm import Pcm
from gpuflow.codecs.probe import sniff
from gpuflow.config import AudioOptions, Limits, VideoOptions
from gpuflow.errors import LimitExceeded, SectionAfterEnd
from gpuflow.flow.context import Deadline
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import AudioMetadata, Features, Frames, Waveform
from tests.flow.audio_files import Samples, lag, with_soundfile
from tests.flow.timed_clips import RATE, SOUND, clip

NEAR = 100  # samples: Matroska's milliseconds, and what TS rounds
FORMS = [
    ("matroska", "libopus"), ("matroska", "aac"), ("matroska", "flac"), ("mp4", "aac"), ("mp4", "flac"), ("mp4", "alac"),
    ("mpegts", "aac"), ("mpegts", "ac3"),
]  # fmt: skip
GAP_FORMS = [("matroska", "aac"), ("matroska", "libopus"), ("matroska", "flac"), ("mp4", "aac"), ("mpegts", "aac")]


def decoded(data: bytes, limits: Limits | None = None, **wanted: Any) -> Pcm:
    """By the library, in this process."""
    return decode_audio(data, sniff(data), limits=limits or Limits(), deadline=Deadline(60.0), **wanted)


def beside(flow: SyncFlow, data: bytes, sound: AudioOptions | None = None, **wanted: Any) -> tuple[Any, Any]:
    """Samples and metadata of the sound beside two pictures; ``None`` twice of none."""
    options = VideoOptions(num_frames=2, audio=sound or AudioOptions(), **wanted)
    with flow.load(data, options=options) as media:
        assert isinstance(media, Frames)
        if media.audio is None:
            return None, None
        assert isinstance(media.audio, Waveform)
        return media.audio.numpy()[0].copy(), media.audio.metadata


def alone(flow: SyncFlow, data: bytes, **wanted: Any) -> tuple[Samples, AudioMetadata]:
    """Likewise without pictures."""
    with flow.load(data, options=AudioOptions(**wanted), modality="audio") as media:
        assert isinstance(media, Waveform)
        return media.numpy()[0].copy(), media.metadata


@pytest.mark.parametrize(("muxer", "codec"), FORMS)
@pytest.mark.parametrize("sound_at", [0.0, 0.5])
def test_sound_beside_a_video_begins_when_the_first_picture_is_shown(
    muxer: str, codec: str, sound_at: float, flow: SyncFlow
) -> None:
    samples, metadata = beside(flow, clip(muxer, codec, sound_at=sound_at).data)
    first = round(sound_at * RATE)
    assert abs(lag(samples[first:], SOUND[0, : 3 * RATE])) <= NEAR
    assert metadata.begins_seconds == 0.0
    assert metadata.filled_seconds == pytest.approx(sound_at, abs=0.025)  # what an encoder begins with is heard before
    assert not samples[: round(metadata.filled_seconds * RATE)].any()


@pytest.mark.parametrize(("muxer", "codec"), [("matroska", "flac"), ("mp4", "aac"), ("mpegts", "aac")])
def test_sound_from_before_the_first_picture_is_left_out_beside_it(muxer: str, codec: str, flow: SyncFlow) -> None:
    made = clip(muxer, codec, video_at=0.5)
    samples, metadata = beside(flow, made.data)
    assert abs(lag(samples, SOUND[0, RATE // 2 : 3 * RATE])) <= NEAR
    assert (metadata.begins_seconds, metadata.filled_seconds) == (0.0, 0.0)
    whole, facts = alone(flow, made.data)
    assert abs(lag(whole, SOUND[0, : 3 * RATE]) + (facts.begins_seconds + 0.5) * RATE) <= NEAR


@pytest.mark.parametrize(("muxer", "codec"), FORMS)
@pytest.mark.parametrize("start", [0.0, 1.25])
def test_sound_that_is_loaded_alone_says_when_it_begins(muxer: str, codec: str, start: float, flow: SyncFlow) -> None:
    samples, metadata = alone(flow, clip(muxer, codec, sound_at=0.5).data, start_seconds=start)
    heard_at = lag(SOUND[0, : 3 * RATE], samples) / RATE + 0.5
    assert metadata.begins_seconds == pytest.approx(heard_at, abs=NEAR / RATE)
    assert metadata.filled_seconds == 0.0


def test_sound_of_no_video_begins_where_it_begins(flow: SyncFlow) -> None:
    for data in (clip("mp4", "aac", sound_at=0.5, video=False).data, with_soundfile(SOUND, RATE, "FLAC", "PCM_16")):
        assert alone(flow, data)[1].begins_seconds == 0.0
        assert alone(flow, data, start_seconds=1.5, sample_rate=16_000)[1].begins_seconds == 1.5


@pytest.mark.parametrize(("muxer", "codec"), GAP_FORMS)
def test_what_follows_lost_packets_is_heard_in_time(muxer: str, codec: str, flow: SyncFlow) -> None:
    made = clip(muxer, codec, 5.0, dropped=(50, 60) if codec != "flac" else (15, 17))
    lost = (10 if codec != "flac" else 2) * made.packet_seconds
    for samples, metadata in (beside(flow, made.data), alone(flow, made.data)):
        end = samples[-RATE:]
        at = len(samples) - RATE + round(metadata.begins_seconds * RATE)
        assert abs(lag(end, SOUND[0, at : at + RATE])) <= NEAR
        assert metadata.filled_seconds == pytest.approx(lost, abs=0.002)
        assert abs(lost * RATE - _longest_silence(samples)) <= NEAR


def _longest_silence(samples: Samples) -> int:
    sounds = np.flatnonzero(samples)
    return int(np.diff(sounds).max()) - 1


@pytest.mark.parametrize(("muxer", "codec"), [("matroska", "aac"), ("mpegts", "aac"), ("mp4", "aac")])
def test_jitter_is_no_gap(muxer: str, codec: str) -> None:
    plain, jittered = clip(muxer, codec), clip(muxer, codec, jitter_seconds=0.01)
    assert jittered.data != plain.data
    pcm = decoded(jittered.data)
    assert pcm.origin.filled_seconds == 0.0
    assert np.array_equal(pcm.samples, decoded(plain.data).samples)


@pytest.mark.parametrize(("muxer", "codec"), GAP_FORMS)
@given(start=st.floats(0.0, 10.8), duration=st.one_of(st.none(), st.floats(0.001, 4.0)))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_a_section_of_sound_with_gaps_equals_that_part_of_the_whole(
    muxer: str, codec: str, start: float, duration: float | None
) -> None:
    data = clip(muxer, codec, 10.0, dropped=(40, 60), late=(90, 0.9)).data
    whole, got = decoded(data), decoded(data, start_seconds=start, duration_seconds=duration)
    first = round(start * RATE)
    part = whole.samples[:, first : None if duration is None else first + max(1, round(duration * RATE))]
    assert got.samples.shape == part.shape
    assert np.abs(got.samples - part).max() <= (1e-6 if codec == "libopus" else 0.0)
    assert got.origin.filled_seconds <= whole.origin.filled_seconds
    assert got.origin.begins_seconds == pytest.approx(whole.origin.begins_seconds + start, abs=1 / RATE)


@pytest.mark.parametrize("start", [0.0, 40.0])
@pytest.mark.parametrize(("muxer", "codec"), [("matroska", "aac"), ("mp4", "flac"), ("mpegts", "aac")])
def test_times_that_lie_make_no_more_silence_than_is_allowed(muxer: str, codec: str, start: float) -> None:
    hours = clip(muxer, codec, late=(20, 7_200.0)).data
    with pytest.raises(LimitExceeded, match="max_audio_seconds"):
        decoded(hours, start_seconds=start)
    with pytest.raises(LimitExceeded, match="max_pcm_bytes"):
        decoded(hours, Limits(max_audio_seconds=86_400.0, max_pcm_bytes=1 << 20), start_seconds=start)
    if start == 0.0:
        assert decoded(hours, duration_seconds=5.0).samples.shape == (1, 5 * RATE)
    far = clip(muxer, codec, sound_at=7_200.0).data
    with pytest.raises(LimitExceeded, match="max_audio_seconds"):
        decoded(far, zero_seconds=0.0)
    with pytest.raises(LimitExceeded, match="max_audio_seconds"):
        decoded(clip(muxer, codec).data, zero_seconds=7_200.0)


@pytest.mark.parametrize(("muxer", "codec"), [("matroska", "libopus"), ("mp4", "aac"), ("mpegts", "aac")])
@pytest.mark.parametrize("sound_at", [0.0, 0.5])
def test_a_section_of_a_video_has_the_sound_of_that_section(
    muxer: str, codec: str, sound_at: float, flow: SyncFlow
) -> None:
    data = clip(muxer, codec, 10.0, sound_at=sound_at).data
    for start, end in ((1.0, 2.5), (7.0, 8.0), (0.0, 1.0), (8.5, None)):
        samples, metadata = beside(flow, data, start_seconds=start, end_seconds=end)
        assert metadata.begins_seconds == metadata.start_seconds == start
        if end is not None:
            assert len(samples) == round((end - start) * RATE)
        assert abs(lag(samples, SOUND[0, round((start - sound_at) * RATE) :][: len(samples)])) <= NEAR or start == 0.0
        if start == 0.0:
            assert abs(lag(samples[round(sound_at * RATE) :], SOUND[0, :RATE])) <= NEAR


def test_a_section_of_its_own_counts_from_the_first_picture(flow: SyncFlow) -> None:
    data = clip("matroska", "flac", sound_at=0.5).data
    own = AudioOptions(start_seconds=1.0, duration_seconds=0.5)
    samples, metadata = beside(flow, data, own, start_seconds=2.0, end_seconds=2.5)
    assert np.abs(samples - SOUND[0, RATE // 2 : RATE]).max() < 1e-4
    assert (metadata.begins_seconds, metadata.duration_seconds) == (1.0, 0.5)


def test_a_section_of_a_video_after_its_sound_has_none(flow: SyncFlow) -> None:
    data = clip("mp4", "aac", 3.0, dropped=(60, 999)).data
    for stream in (None, 0):
        assert beside(flow, data, AudioOptions(stream=stream), start_seconds=2.0) == (None, None)
        assert beside(flow, data, AudioOptions(stream=stream), start_seconds=1.0)[0] is not None
    with pytest.raises(SectionAfterEnd):
        beside(flow, data, AudioOptions(start_seconds=2.0))


def test_features_beside_a_video_are_in_time_too(flow: SyncFlow) -> None:
    sound = AudioOptions(features="qwen2.5-omni")
    with flow.load(
        clip("matroska", "flac", sound_at=0.5).data, options=VideoOptions(num_frames=2, audio=sound)
    ) as media:
        assert isinstance(media.audio, Features)
        source = media.audio.metadata.source
        assert isinstance(source, AudioMetadata)
        assert (source.begins_seconds, source.filled_seconds) == (0.0, 0.5)
        assert source.num_samples == 3.5 * 16_000


@pytest.mark.parametrize("muxer", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("video_at", [0.0, 0.5])
def test_a_video_says_which_time_of_the_container_it_begins_at(muxer: str, video_at: float, flow: SyncFlow) -> None:
    data = clip(muxer, "aac", video_at=video_at).data
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        times = [packet.pts * stream.time_base for packet in container.demux(stream) if packet.pts is not None]
    with flow.load(data, options=VideoOptions(num_frames=2)) as media:
        assert isinstance(media, Frames)
        assert media.metadata.origin_seconds == float(min(times))
        assert media.metadata.timestamps_seconds[0] == 0.0


@pytest.mark.parametrize(("muxer", "codec"), [form for form in GAP_FORMS if form[0] != "mp4"])  # whose muxer mends it
@pytest.mark.parametrize("start", [0.0, 6.0])
def test_one_packet_whose_time_lies_moves_nothing(muxer: str, codec: str, start: float) -> None:
    honest, lying = (clip(muxer, codec, 8.0, liar=liar).data for liar in (0.0, 0.3))
    assert honest != lying
    found, expected = (decoded(data, start_seconds=start) for data in (lying, honest))
    assert found.origin.filled_seconds == 0.0
    assert np.array_equal(found.samples, expected.samples)
