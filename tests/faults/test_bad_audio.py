"""Bad audio files: each ends in its own error, in bounded time and memory, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import resource
import struct
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from gpuflow.config import AudioOptions
from gpuflow.errors import CorruptMedia, DeadlineExceeded, GpuflowError, LimitExceeded, NoSuchStream, UnsupportedFormat
from gpuflow.flow.audio import load_audio
from gpuflow.flow.context import LoadContext
from gpuflow.media import Waveform
from tests.flow.audio_files import KINDS, blob, chirp, with_ffmpeg, with_soundfile

HTML = b"<!DOCTYPE html><html><head><title>404</title></head><body>not here</body></html>" * 20
OF_THE_FILE = (CorruptMedia, NoSuchStream, UnsupportedFormat, LimitExceeded)
MAX_SECONDS = 3.0  # on a busy machine; each takes milliseconds


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No test of this file may be slow, take memory, or leave a file open."""
    _warm()
    files, peak, started = _open_files(), _peak_bytes(), time.perf_counter()
    yield
    assert time.perf_counter() - started < MAX_SECONDS
    assert _peak_bytes() - peak < 96 << 20
    gc.collect()  # views in the tracebacks of errors keep the mapping of a closed slab, and its file
    assert _open_files() == files


def _warm() -> None:
    import av
    import soundfile

    assert av.__version__
    assert soundfile.__version__


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _refused(data: bytes, kind: str, context: LoadContext, error: type[GpuflowError], options: AudioOptions) -> str:
    with pytest.raises(GpuflowError) as raised:
        load_audio(blob(data), KINDS[kind], options, context)
    assert type(raised.value) is error
    assert 400 <= error.http_status < 500
    assert "0x" not in str(raised.value)
    assert context.slab.statistics().live_leases == 0
    return str(raised.value)


@pytest.mark.parametrize("options", [AudioOptions(), AudioOptions(features="whisper-80")])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("data", [HTML, b"", b"\0" * 4096], ids=["html", "empty", "zeros"])
def test_bytes_that_are_no_audio_are_corrupt_media(
    data: bytes, kind: str, options: AudioOptions, context: LoadContext
) -> None:
    _refused(data, kind, context, CorruptMedia, options)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_wav_without_a_sample_has_no_such_stream(subtype: str, context: LoadContext) -> None:
    data = with_soundfile(np.zeros((2, 0), np.float32), 16_000, "WAV", subtype)
    _refused(data, "wav", context, NoSuchStream, AudioOptions())


def test_video_whose_sound_is_empty_has_no_such_stream(context: LoadContext) -> None:
    data = with_ffmpeg(np.zeros((2, 0), np.float32), 48_000, "matroska", "pcm_s16le", video=True)
    _refused(data, "matroska", context, NoSuchStream, AudioOptions())


@pytest.mark.parametrize(("kind", "muxer"), [("mp4", "mp4"), ("matroska", "matroska"), ("mpegts", "mpegts")])
def test_video_without_sound_has_no_such_stream(kind: str, muxer: str, context: LoadContext) -> None:
    _refused(with_ffmpeg(None, 0, muxer, "", video=True), kind, context, NoSuchStream, AudioOptions())


def test_clip_shorter_than_a_sample_of_the_wanted_rate_has_no_such_stream(context: LoadContext) -> None:
    data = with_soundfile(chirp(1 / 96_000, 96_000), 96_000, "WAV", "PCM_16")
    _refused(data, "wav", context, NoSuchStream, AudioOptions(sample_rate=8_000))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("options", [AudioOptions(), AudioOptions(features="whisper-80")])
def test_samples_that_are_no_numbers_are_corrupt_media(
    value: float, options: AudioOptions, context: LoadContext
) -> None:
    samples = chirp(0.5, 16_000, 2)
    samples[1, 5_000] = value
    _refused(with_soundfile(samples, 16_000, "WAV", "FLOAT"), "wav", context, CorruptMedia, options)


def _whole_files() -> dict[str, tuple[str, Callable[[], bytes]]]:
    stereo = chirp(1.0, 48_000, 2)
    return {
        "wav": ("wav", lambda: with_soundfile(stereo, 48_000, "WAV", "PCM_16")),
        "flac": ("flac", lambda: with_soundfile(stereo, 48_000, "FLAC", "PCM_16")),
        "mp3": ("mp3", lambda: with_soundfile(stereo, 48_000, "MP3", "MPEG_LAYER_III")),
        "vorbis": ("ogg", lambda: with_soundfile(stereo, 48_000, "OGG", "VORBIS")),
        "opus": ("ogg", lambda: with_soundfile(stereo, 48_000, "OGG", "OPUS")),
        "m4a": ("m4a", lambda: with_ffmpeg(stereo, 48_000, "ipod", "aac")),
        "adts": ("aac", lambda: with_ffmpeg(stereo, 48_000, "adts", "aac")),
        "mkv": ("matroska", lambda: with_ffmpeg(stereo, 48_000, "matroska", "flac")),
        "ts": ("mpegts", lambda: with_ffmpeg(stereo, 48_000, "mpegts", "aac")),
        "mp4": ("mp4", lambda: with_ffmpeg(stereo, 48_000, "mp4", "aac", video=True)),
    }


@pytest.mark.parametrize("name", list(_whole_files()))
def test_file_cut_at_every_tenth_is_shorter_or_refused(name: str, context: LoadContext) -> None:
    kind, make = _whole_files()[name]
    data = make()
    for tenth in range(1, 10):
        try:
            media = load_audio(blob(data[: len(data) * tenth // 10]), KINDS[kind], AudioOptions(), context)
        except OF_THE_FILE:
            continue
        assert isinstance(media, Waveform)
        with media:
            assert 0 < media.shape[1] <= 48_000
            assert np.isfinite(media.numpy()).all()


@pytest.mark.parametrize("name", list(_whole_files()))
def test_flipped_bytes_never_escape_the_error_tree(name: str, context: LoadContext) -> None:
    kind, make = _whole_files()[name]
    data = make()
    rng = np.random.default_rng(11)
    for _ in range(12):
        bad = bytearray(data)
        for at in rng.integers(0, len(bad), 20):
            bad[at] = rng.integers(256)
        with contextlib.suppress(*OF_THE_FILE):
            load_audio(blob(bytes(bad)), KINDS[kind], AudioOptions(), context).release()


def test_a_codec_that_is_not_on_the_list_is_named(context: LoadContext) -> None:
    data = with_ffmpeg(chirp(0.5, 48_000, 2), 48_000, "matroska", "wavpack")
    assert "wavpack" in _refused(data, "matroska", context, UnsupportedFormat, AudioOptions())


@pytest.mark.parametrize("rate", [1, 3_999, 192_001, 1_700_000_000])
def test_sample_rate_out_of_range_exceeds_a_limit(rate: int, context: LoadContext) -> None:
    wav = bytearray(with_soundfile(chirp(0.5, 16_000), 16_000, "WAV", "PCM_16"))
    wav[24:28] = struct.pack("<I", rate)
    assert "Hz" in _refused(bytes(wav), "wav", context, LimitExceeded, AudioOptions(sample_rate=16_000))


def test_64_channels_exceed_a_limit(context: LoadContext) -> None:
    data = with_soundfile(np.zeros((64, 1_000), np.float32), 16_000, "WAV", "PCM_16")
    assert "64 audio channels" in _refused(data, "wav", context, LimitExceeded, AudioOptions())


def _claim_samples(flac: bytes, claim: int) -> bytes:
    """The same FLAC whose STREAMINFO claims another number of samples (36 bits at bit 108)."""
    bad = bytearray(flac)
    bad[21] = bad[21] & 0xF0 | claim >> 32
    bad[22:26] = struct.pack(">I", claim & 0xFFFFFFFF)
    return bytes(bad)


@pytest.mark.parametrize("claim", [2**36 - 1, 2_000_000_000])
def test_flac_that_claims_days_exceeds_a_limit(claim: int, context: LoadContext) -> None:
    flac = with_soundfile(chirp(0.5, 16_000), 16_000, "FLAC", "PCM_16")
    assert "max_audio_seconds" in _refused(_claim_samples(flac, claim), "flac", context, LimitExceeded, AudioOptions())


def test_flac_that_does_not_say_its_length_is_decoded(context: LoadContext) -> None:
    flac = with_soundfile(chirp(0.5, 16_000), 16_000, "FLAC", "PCM_16")
    with load_audio(blob(_claim_samples(flac, 0)), KINDS["flac"], AudioOptions(), context) as media:
        assert media.shape == (1, 8_000)


@pytest.mark.parametrize("options", [AudioOptions(), AudioOptions(sample_rate=16_000)])
def test_hour_of_silence_exceeds_a_limit_by_its_header(
    options: AudioOptions, context: LoadContext, hour_of_flac: bytes
) -> None:
    assert len(hour_of_flac) < 600_000
    _refused(hour_of_flac, "flac", context, LimitExceeded, options)


def test_hour_of_silence_without_a_length_exceeds_a_limit_while_it_is_decoded(context: LoadContext) -> None:
    second = with_ffmpeg(np.zeros((1, 8_192), np.float32), 8_000, "adts", "aac")
    _refused(second * 3_515, "aac", context, LimitExceeded, AudioOptions())


def test_hour_of_silence_whose_header_hides_it_exceeds_a_limit(context: LoadContext, hour_of_flac: bytes) -> None:
    _refused(_claim_samples(hour_of_flac, 0), "flac", context, LimitExceeded, AudioOptions())


def test_resampled_size_is_limited_before_resampling(context: LoadContext) -> None:
    data = with_soundfile(np.zeros((8, 8_000 * 60), np.float32), 8_000, "FLAC", "PCM_16")
    options = AudioOptions(mono=False, sample_rate=192_000)
    assert "max_pcm_bytes" in _refused(data, "flac", context, LimitExceeded, options)


def test_decoding_stops_at_the_deadline(context: LoadContext) -> None:
    data = with_soundfile(np.zeros((1, 48_000), np.float32), 48_000, "WAV", "PCM_16")
    context.deadline.cancel()
    with pytest.raises(DeadlineExceeded):
        load_audio(blob(data), KINDS["wav"], AudioOptions(), context)


@pytest.fixture(scope="module")
def hour_of_flac() -> bytes:
    """An hour at 8 kHz, written in minutes."""
    import soundfile

    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", 8_000, 1, "PCM_16", format="FLAC") as file:
        minute = np.zeros(8_000 * 60, np.int16)
        for _ in range(60):
            file.write(minute)
    return out.getvalue()
