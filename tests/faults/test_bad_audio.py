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
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

from gpuflow.config import AudioOptions, Limits
from gpuflow.errors import (
    CorruptMedia,
    DeadlineExceeded,
    GpuflowError,
    InvalidOptions,
    LimitExceeded,
    NoSuchStream,
    UnsupportedFormat,
)
from gpuflow.flow.audio import load_audio
from gpuflow.flow.context import LoadContext
from tests.flow.audio_files import KINDS, blob, chirp, noise, with_ffmpeg, with_soundfile

HTML = b"<!DOCTYPE html><html><head><title>404</title></head><body>not here</body></html>" * 20
OF_THE_FILE = (CorruptMedia, NoSuchStream, UnsupportedFormat, LimitExceeded)
_LAST_FRAME = 2_048
MAX_SECONDS = 3.0  # on a busy machine; each takes milliseconds


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No test of this file may be slow, take memory, or leave a file open."""
    _warm()
    files, peak, started = _open_files(), _peak_bytes(), time.perf_counter()
    yield
    assert time.perf_counter() - started < MAX_SECONDS
    assert _peak_bytes() - peak < 96 << 20
    for generation in range(3):  # views in the tracebacks of errors keep the mapping of a closed slab, and its file
        if _open_files() != files:
            gc.collect(generation)  # the last takes 0.3 s where transformers is imported
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


BY_LIBSNDFILE = {  # kind, format, subtype
    "wav": ("wav", "WAV", "PCM_16"),
    "flac": ("flac", "FLAC", "PCM_16"),
    "mp3": ("mp3", "MP3", "MPEG_LAYER_III"),
    "vorbis": ("ogg", "OGG", "VORBIS"),
    "opus": ("ogg", "OGG", "OPUS"),
    "aiff": ("aiff", "AIFF", "PCM_24"),
    "au": ("au", "AU", "ULAW"),
    "caf": ("caf", "CAF", "PCM_16"),
    "adpcm": ("wav", "WAV", "MS_ADPCM"),
}
BY_FFMPEG: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # kind, muxer, codec, settings
    "m4a": ("m4a", "ipod", "aac", {}),
    "m4a in parts": ("m4a", "mp4", "aac", {"muxing": {"movflags": "empty_moov", "frag_duration": "100000"}}),
    "alac": ("m4a", "ipod", "alac", {}),
    "adts": ("aac", "adts", "aac", {}),
    "mkv": ("matroska", "matroska", "flac", {}),
    "webm": ("matroska", "webm", "libopus", {}),
    "ogg flac": ("ogg", "ogg", "flac", {}),
    "ac3": ("ac3", "ac3", "ac3", {}),
    "eac3": ("eac3", "eac3", "eac3", {}),
    "wma": ("wma", "asf", "wmav2", {"bit_rate": 96_000}),
    "amr": ("amr", "amr", "libopencore_amrnb", {"bit_rate": 12_200}),
    "ts": ("mpegts", "mpegts", "aac", {}),
    "mp4": ("mp4", "mp4", "aac", {"video": True}),
}
FILES = (*BY_LIBSNDFILE, *BY_FFMPEG)


def _whole_file(name: str) -> tuple[str, bytes]:
    """Its kind, and a second of it."""
    stereo = chirp(1.0, 48_000, 2)
    if name in BY_LIBSNDFILE:
        kind, form, subtype = BY_LIBSNDFILE[name]
        return kind, with_soundfile(stereo, 48_000, form, subtype)
    kind, muxer, codec, settings = BY_FFMPEG[name]
    samples, rate = (noise(0.9, 8_000), 8_000) if name == "amr" else (stereo, 48_000)
    return kind, with_ffmpeg(samples, rate, muxer, codec, **settings)


# Tenths of a file before which there is no sample: a page of Ogg is whole or nothing, as is a first packet of ASF
NOTHING_BEFORE = {"vorbis": 5, "opus": 4, "ogg flac": 4, "wma": 3}
UNREADABLE = {"m4a", "alac", "mp4"}  # their tables are at the end
LOST_SAMPLES = {"vorbis": 17_000, "opus": 16_500, "ogg flac": 20_000, "wma": 5_000, "mp3": 6_000, "flac": 5_000}


@pytest.mark.parametrize("name", FILES)
def test_file_cut_at_every_tenth_gives_what_is_there(name: str, context: LoadContext) -> None:
    kind, data = _whole_file(name)
    with load_audio(blob(data), KINDS[kind], AudioOptions(), context) as whole:
        expected = whole.numpy().copy()
    last = 0
    for tenth in range(1, 10):
        cut = data[: len(data) * tenth // 10]
        if name in UNREADABLE or tenth < NOTHING_BEFORE.get(name, 0):
            _refused(cut, kind, context, CorruptMedia, AudioOptions())
            continue
        with load_audio(blob(cut), KINDS[kind], AudioOptions(), context) as media:
            count = media.shape[1]
            assert last <= count
            assert expected.shape[1] * tenth / 10 - LOST_SAMPLES.get(name, 3_000) <= count
            assert count <= expected.shape[1]
            part = slice(None, max(0, count - _LAST_FRAME))  # which a decoder may end otherwise
            assert np.abs(media.numpy()[:, part] - expected[:, part][:, :count]).max(initial=0.0) < 1e-6
            last = count


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_flac_that_is_damaged_in_the_middle_is_not_taken_for_one_that_breaks_off(
    at: float, context: LoadContext
) -> None:
    data = bytearray(with_soundfile(chirp(2.0, 48_000, 2), 48_000, "FLAC", "PCM_16"))
    data[round(at * len(data))] ^= 0x10
    _refused(bytes(data), "flac", context, CorruptMedia, AudioOptions())


def test_wav_of_64_bit_integers_is_of_no_supported_format(context: LoadContext) -> None:
    data = with_ffmpeg(chirp(0.5, 48_000, 2), 48_000, "wav", "pcm_s64le")
    assert "32 bits" in _refused(data, "wav", context, UnsupportedFormat, AudioOptions())


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes_never_escape_the_error_tree(name: str, context: LoadContext) -> None:
    kind, data = _whole_file(name)
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


@pytest.mark.parametrize("rate", [1, 655_350])
def test_rate_out_of_range_exceeds_a_limit_in_every_format_that_can_say_it(rate: int, context: LoadContext) -> None:
    flac = bytearray(with_soundfile(chirp(0.5, 16_000), 16_000, "FLAC", "PCM_16"))
    flac[18:21] = struct.pack(">I", rate << 12 | int.from_bytes(flac[18:22], "big") & 0xFFF)[:3]
    au = bytearray(with_soundfile(chirp(0.5, 16_000), 16_000, "AU", "PCM_16"))
    au[16:20] = struct.pack(">I", rate)
    caf = bytearray(with_soundfile(chirp(0.5, 16_000), 16_000, "CAF", "PCM_16"))
    caf[20:28] = struct.pack(">d", rate)
    for kind, data in (("flac", flac), ("au", au), ("caf", caf)):
        for options in (AudioOptions(), AudioOptions(features="whisper-80")):
            assert f"{rate} Hz" in _refused(bytes(data), kind, context, LimitExceeded, options)


@pytest.mark.parametrize("count", [1, 10, 160, 200, 201, 399, 401])
def test_what_is_shorter_than_a_window_is_padded(count: int, context: LoadContext) -> None:
    data = with_soundfile(noise(1.0, 16_000)[:, :count], 16_000, "WAV", "PCM_16")
    with load_audio(blob(data), KINDS["wav"], AudioOptions(features="whisper-80"), context) as media:
        assert media.shape == (80, 3_000)
        assert np.isfinite(media.numpy()).all()
    with load_audio(blob(data), KINDS["wav"], AudioOptions(), context) as media:
        assert media.shape == (1, count)


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


def _lying() -> dict[str, tuple[str, Callable[[], bytes]]]:
    """Files of half a second whose headers claim other counts of samples, packets or bytes, all of them allowed."""

    def changed(make: Callable[[], bytes], *changes: tuple[int, bytes]) -> Callable[[], bytes]:
        def made() -> bytes:
            data = bytearray(make())
            for at, value in changes:
                data[at : at + len(value)] = value
            return bytes(data)

        return made

    short = chirp(0.5, 16_000)
    wav, flac, aiff, au = (
        partial(with_soundfile, short, 16_000, form, "PCM_16") for form in ("WAV", "FLAC", "AIFF", "AU")
    )
    many, few = struct.pack(">I", 4_000_000), struct.pack(">I", 100)
    return {
        "wav more": ("wav", changed(wav, (40, many[::-1]), (4, many[::-1]))),
        "wav less": ("wav", changed(wav, (40, few[::-1]))),
        "flac more": ("flac", changed(flac, (22, many))),
        "flac less": ("flac", changed(flac, (22, few))),
        "aiff more": ("aiff", lambda: aiff().replace(struct.pack(">I", 8_000), many, 1)),
        "aiff less": ("aiff", lambda: aiff().replace(struct.pack(">I", 8_000), few, 1)),
        "au more": ("au", changed(au, (8, many))),
        "au less": ("au", changed(au, (8, few))),
        "mp3 more": ("mp3", lambda: _xing(4_000)),
        "mp3 less": ("mp3", lambda: _xing(3)),
    }


def _xing(frames: int) -> bytes:
    """An MP3 whose Xing header names so many frames."""
    data = bytearray(with_soundfile(chirp(0.5, 16_000), 16_000, "MP3", "MPEG_LAYER_III"))
    at = max(data.find(b"Xing"), data.find(b"Info"))
    data[at + 8 : at + 12] = struct.pack(">I", frames)
    return bytes(data)


@pytest.mark.parametrize("options", [AudioOptions(), AudioOptions(start_seconds=0.25, duration_seconds=0.1)])
@pytest.mark.parametrize("name", list(_lying()))
def test_header_that_lies_about_counts_gives_what_is_there_or_an_error(
    name: str, options: AudioOptions, context: LoadContext
) -> None:
    kind, make = _lying()[name]
    try:
        media = load_audio(blob(make()), KINDS[kind], options, context)
    except (*OF_THE_FILE, InvalidOptions):
        return
    with media:
        assert 0 < media.shape[1] <= 10_000
        assert np.isfinite(media.numpy()).all()


@pytest.mark.parametrize(
    "options", [AudioOptions(), AudioOptions(sample_rate=16_000), AudioOptions(start_seconds=3_000.0)]
)
def test_hour_of_opus_under_250_kb_exceeds_a_limit(
    options: AudioOptions, context: LoadContext, hour_of_opus: bytes
) -> None:
    assert len(hour_of_opus) < 250_000
    _refused(hour_of_opus, "ogg", context, LimitExceeded, options)


def test_hour_of_opus_that_is_allowed_costs_no_more_than_what_is_wanted(
    context: LoadContext, hour_of_opus: bytes
) -> None:
    context.limits = Limits(max_audio_seconds=4_000.0, audio_seconds=60.0)
    with load_audio(blob(hour_of_opus), KINDS["ogg"], AudioOptions(features="whisper-80"), context) as media:
        assert media.shape == (80, 3_000)
    options = AudioOptions(start_seconds=3_590.0, sample_rate=16_000)
    with load_audio(blob(hour_of_opus), KINDS["ogg"], options, context) as media:
        assert 159_000 < media.shape[1] <= 160_000  # what an encoder begins with is trimmed
        assert not media.numpy().any()
    # an hour of floats at 48 kHz is 691 MB
    assert "max_pcm_bytes" in _refused(hour_of_opus, "ogg", context, LimitExceeded, AudioOptions())


def test_hour_of_amr_in_180_kb_exceeds_a_limit(context: LoadContext) -> None:
    data = b"#!AMR-WB\n" + b"\x7c" * 180_000
    _refused(data, "amr", context, LimitExceeded, AudioOptions())
    with load_audio(blob(data), KINDS["amr"], AudioOptions(duration_seconds=1.0), context) as media:
        assert media.shape == (1, 16_000)


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
def hour_of_opus() -> bytes:
    """An hour of frames that say nothing, one byte each: 60 ms of SILK in discontinuous transmission."""
    import av

    out, step, frames = io.BytesIO(), 2_880, 60_000
    template = with_ffmpeg(np.zeros((1, 48_000), np.float32), 48_000, "ogg", "libopus")
    with (
        av.open(io.BytesIO(template), format="ogg") as source,
        av.open(out, "w", format="ogg", options={"page_duration": "10000000"}) as to,
    ):
        stream = to.add_stream_from_template(source.streams.audio[0])
        for number in range(frames):
            packet = av.Packet(b"\x18")
            packet.pts = packet.dts = step * number - 312
            packet.duration, packet.time_base, packet.stream = step, Fraction(1, 48_000), stream
            to.mux(packet)
    return out.getvalue()


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
