"""Recordings that break off, and what stands in for them, through a flow: in this process and in sandboxed workers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gpuflow.config import AudioOptions
from gpuflow.errors import CorruptMedia, GpuflowError, UnsupportedFormat
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Waveform
from tests.flow.audio_files import Samples, chirp, with_ffmpeg, with_soundfile

RATE = 48_000
SOUND = chirp(4.0, RATE, 2)


def loaded(flow: SyncFlow, data: bytes, start: float = 0.0) -> Samples:
    """All channels, from there on."""
    with flow.load(data, options=AudioOptions(mono=False, start_seconds=start), modality="audio") as media:
        assert isinstance(media, Waveform)
        samples: Samples = media.numpy().copy()
        return samples


@pytest.mark.parametrize("form", ["FLAC", "CAF", "WAV", "AIFF"])
def test_a_recording_that_breaks_off_gives_what_is_there(form: str, flow: SyncFlow) -> None:
    data = with_soundfile(SOUND, RATE, form, "PCM_16")
    whole, cut = loaded(flow, data), data[: len(data) * 7 // 10]
    got, section = loaded(flow, cut), loaded(flow, cut, 2.0)
    count = got.shape[1]
    assert 0.7 * 4 * RATE - 8_192 <= count < 0.75 * 4 * RATE
    assert np.array_equal(got, whole[:, :count])
    assert np.array_equal(section, whole[:, 2 * RATE : count])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: with_soundfile(SOUND[:, :RATE], RATE, "OGG", "VORBIS")[:4_800], CorruptMedia),
        (lambda: with_soundfile(SOUND, RATE, "FLAC", "PCM_16")[:9_000], CorruptMedia),
        (lambda: with_ffmpeg(SOUND, RATE, "wav", "pcm_s64le"), UnsupportedFormat),
    ],
    ids=["ogg without a page", "flac without a frame", "64 bits"],
)
def test_what_gives_no_sample_is_told_why(make: Callable[[], bytes], error: type[GpuflowError], flow: SyncFlow) -> None:
    with pytest.raises(GpuflowError) as raised:
        loaded(flow, make())
    assert type(raised.value) is error


@pytest.mark.parametrize("bit_rate", [32_000, 128_000])
def test_a_section_of_mp3_in_wav_is_that_part_of_it(bit_rate: int, flow: SyncFlow) -> None:
    data = with_ffmpeg(np.tile(SOUND, 3), RATE, "wav", "libmp3lame", bit_rate=bit_rate)
    whole, section = loaded(flow, data), loaded(flow, data, 8.0)
    assert np.abs(section - whole[:, 8 * RATE :]).max() <= 1e-6
