"""What decodes what: every format against an independent decode, its alignment to the samples that were encoded, channels."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from gpuflow.codecs.audio import audio_info, decode_audio
from gpuflow.codecs.pcm import Pcm
from gpuflow.codecs.probe import sniff
from gpuflow.config import Limits
from gpuflow.errors import NoSuchStream, UnsupportedFormat
from gpuflow.flow.context import Deadline
from tests.flow.audio_files import Samples, chirp, lag, noise, with_ffmpeg, with_languages, with_soundfile
from tests.parity.tolerances import TOLERANCES
from tests.unit.probe_files import remuxed

RATE = 48_000
WIDE = Limits(max_audio_channels=64)


def decoded(data: bytes, **wanted: Any) -> Pcm:
    """By the library, as it is found."""
    return decode_audio(data, sniff(data), limits=wanted.pop("limits", WIDE), deadline=Deadline(60.0), **wanted)


def by_libsndfile(data: bytes) -> Samples:
    """Whole, in one read: soundfile seeks after every one."""
    samples: Samples = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T
    return samples


def by_ffmpeg(data: bytes, demuxer: str) -> Samples:
    """Whole, as floats."""
    with av.open(io.BytesIO(data), format=demuxer) as container:
        blocks = []
        for frame in container.decode(audio=0):
            array = frame.to_ndarray()
            if not frame.format.is_planar:
                array = array.reshape(frame.samples, frame.layout.nb_channels).T
            full = 1.0 if array.dtype.kind == "f" else 2.0 ** (8 * array.itemsize - 1)
            blocks.append((array.astype(np.float64) - (full if array.dtype.kind == "u" else 0.0)) / full)
    return np.concatenate(blocks, axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("form", "subtype", "codec", "step"),
    [
        *(
            (form, subtype, codec, step)
            for form in ("WAV", "WAVEX", "RF64")
            for subtype, codec, step in (
                ("PCM_U8", "pcm_u8", 2.0**-7), ("PCM_16", "pcm_s16le", 2.0**-15), ("PCM_24", "pcm_s24le", 2.0**-23),
                ("PCM_32", "pcm_s32le", 2.0**-24), ("FLOAT", "pcm_f32le", 0.0), ("DOUBLE", "pcm_f64le", 0.0),
                ("ULAW", "pcm_mulaw", 0.04), ("ALAW", "pcm_alaw", 0.04),
            )
        ),
        ("AIFF", "PCM_S8", "pcm_s8", 2.0**-7), ("AIFF", "PCM_16", "pcm_s16le", 2.0**-15), ("AIFF", "FLOAT", "pcm_f32le", 0.0),
        ("AU", "PCM_24", "pcm_s24le", 2.0**-23), ("AU", "ULAW", "pcm_mulaw", 0.04),
        ("CAF", "PCM_16", "pcm_s16le", 2.0**-15), ("CAF", "PCM_24", "pcm_s24le", 2.0**-23), ("CAF", "ALAW", "pcm_alaw", 0.04),
    ],
)  # fmt: skip
def test_stored_samples_come_out_as_they_were_written(form: str, subtype: str, codec: str, step: float) -> None:
    samples = chirp(0.2, RATE, 2)
    data = with_soundfile(samples, RATE, form, subtype)
    pcm = decoded(data)
    assert (pcm.origin.backend, pcm.origin.codec, pcm.origin.sample_rate, pcm.origin.channels) == (
        "soundfile",
        codec,
        RATE,
        2,
    )
    assert pcm.samples.shape == samples.shape
    assert np.abs(pcm.samples - samples).max() <= step
    assert np.array_equal(pcm.samples, by_libsndfile(data))
    if form not in ("CAF", "AU"):
        demuxer = "aiff" if form == "AIFF" else "wav"
        assert np.abs(pcm.samples - by_ffmpeg(data, demuxer)).max() <= TOLERANCES["decode/pcm"].max_abs


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM"])
@pytest.mark.parametrize("channels", [1, 2])
def test_adpcm_equals_libavcodecs(subtype: str, channels: int) -> None:
    samples = noise(0.5, RATE, channels)
    data = with_soundfile(samples, RATE, "WAV", subtype)
    pcm = decoded(data)
    assert 0 <= pcm.samples.shape[1] - samples.shape[1] < 2_048  # whole blocks
    assert [lag(*pair) for pair in zip(pcm.samples, samples, strict=True)] == [0] * channels
    count = samples.shape[1]
    difference = np.abs(pcm.samples[:, :count] - by_ffmpeg(data, "wav")[:, :count])
    assert difference.max() < 0.004  # the two round a prediction otherwise now and then, which runs on to a block's end
    assert np.median(difference) == 0.0


# muxer, codec, rate, channels, bit rate: how late the first sample comes, and how many may be there behind the last
ALIGNED: list[tuple[str, str, int, int, int | None, int, int]] = [
    ("flac", "flac", RATE, 2, None, 0, 0),
    ("ogg", "flac", RATE, 2, None, 0, 0),
    ("ogg", "libopus", RATE, 2, None, 0, 0),
    ("webm", "libopus", RATE, 2, None, 0, 0),
    ("matroska", "libmp3lame", RATE, 2, None, 0, 0),
    ("mp4", "libopus", RATE, 2, None, 0, 959),
    ("mp4", "flac", RATE, 2, None, 0, 0),
    ("mp4", "ac3", RATE, 2, None, 0, 1_535),
    ("mp4", "libmp3lame", RATE, 2, None, 0, 1_151),
    ("mov", "pcm_s24le", RATE, 2, None, 0, 0),
    ("ipod", "alac", RATE, 2, None, 0, 0),
    ("matroska", "pcm_s16le", RATE, 2, None, 0, 0),
    # nothing in these says how long the encoder's priming is
    ("asf", "aac", RATE, 2, None, 1_024, 2_047),
    ("mpegts", "libopus", RATE, 2, None, 312, 1_279),
    ("mpegts", "ac3", RATE, 2, None, 256, 1_791),
    ("ac3", "ac3", 44_100, 6, 448_000, 256, 1_791),
    ("eac3", "eac3", 32_000, 2, None, 256, 1_791),
    ("amr", "libopencore_amrnb", 8_000, 1, 12_200, 38, 199),
    # the decoder trims the two frames that Microsoft's encoder begins with; FFmpeg's begins with one
    ("asf", "wmav2", RATE, 2, 128_000, -2_048, 2_047),
    ("asf", "wmav1", 16_000, 1, 24_000, -512, 511),
]  # fmt: skip


@pytest.mark.parametrize(("muxer", "codec", "rate", "channels", "bit_rate", "late", "longer"), ALIGNED)
def test_sound_is_aligned_to_what_was_encoded(
    muxer: str, codec: str, rate: int, channels: int, bit_rate: int | None, late: int, longer: int
) -> None:
    samples = noise(1.0, rate, channels)
    data = with_ffmpeg(samples, rate, muxer, codec, bit_rate=bit_rate)
    pcm = decoded(data)
    found = [lag(*pair) for pair in zip(pcm.samples, samples, strict=True)]
    blunt = (
        2 if "amr" in codec else 1 if channels == 6 else 0
    )  # a codec of speech has no sharp place, nor has a subwoofer
    assert max(abs(place - late) for place in found) <= blunt
    assert min(0, late) <= pcm.samples.shape[1] - samples.shape[1] <= longer
    assert pcm.origin.sample_rate == rate
    if pcm.origin.backend == "pyav":
        expected = by_ffmpeg(data, sniff(data).format)
        assert np.array_equal(pcm.samples, expected)


def test_mp3_without_a_tag_keeps_what_its_encoder_began_with() -> None:
    samples = noise(1.0, RATE, 2)
    pcm = decoded(with_ffmpeg(samples, RATE, "mp3", "libmp3lame", muxing={"write_xing": "0", "id3v2_version": "0"}))
    assert pcm.origin.backend == "soundfile"
    assert lag(pcm.samples[0], samples[0]) == 1_105


@pytest.mark.parametrize("make", [lambda x: with_ffmpeg(x, RATE, "mp3", "libmp3lame", bit_rate=32_000)] + [
    lambda x, subtype=subtype, form=form: with_soundfile(x, RATE, form, subtype)
    for form, subtype in (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"))
], ids=["mp3 of 32 kbit/s", "mp3", "vorbis"])  # fmt: skip
def test_two_decoders_agree_on_every_sample(make: Callable[[Samples], bytes]) -> None:
    """Also where libsndfile reads its next block: soundfile's seek behind each read cost MP3 its bit reservoir there."""
    samples = np.concatenate([chirp(3.0, RATE, 2), np.zeros((2, RATE), np.float32), noise(2.0, RATE, 2)], axis=1)
    data = make(samples)
    pcm, other = decoded(data), by_ffmpeg(data, sniff(data).format)
    assert pcm.origin.backend == "soundfile"
    assert pcm.samples.shape == other.shape == samples.shape
    assert np.abs(pcm.samples - other).max() <= TOLERANCES["decode/lossy"].max_abs


def levels(channels: int, count: int) -> Samples:
    """Every channel a level of its own, exact in 16 bits."""
    rows = np.arange(1, channels + 1) / 128
    return np.repeat(rows[:, None], count, axis=1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 64])
@pytest.mark.parametrize(("form", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "PCM_24")])
def test_channels_are_rows_and_in_the_files_order(form: str, subtype: str, channels: int) -> None:
    if form == "FLAC" and channels > 8:
        pytest.skip("FLAC has eight channels at most")
    samples = levels(channels, 500)
    pcm = decoded(with_soundfile(samples, RATE, form, subtype))
    assert pcm.samples.shape == (channels, 500)
    assert pcm.samples.flags.c_contiguous
    assert np.array_equal(pcm.samples, samples)


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize(("muxer", "codec"), [("matroska", "pcm_f32le"), ("mov", "alac"), ("matroska", "flac")])
def test_channels_of_containers_are_rows_and_in_order(muxer: str, codec: str, channels: int) -> None:
    if (codec, channels) == ("alac", 8):
        pytest.skip("ALAC orders eight channels otherwise, and FFmpeg's encoder refuses them")
    samples = levels(channels, 5_000)
    pcm = decoded(with_ffmpeg(samples, RATE, muxer, codec))
    assert np.array_equal(pcm.samples, samples)


@pytest.mark.parametrize("channels", [8, 9, 16])
def test_planes_of_many_channels_are_those_of_the_file(channels: int) -> None:
    """PyAV lists more planes than there are of eight channels and more: its own array of such a frame ends the process."""
    samples = chirp(2.0, RATE, channels)
    data = with_soundfile(samples, RATE, "OGG", "VORBIS")
    expected, pcm = decoded(data), decoded(remuxed(data, "ogg", "matroska"))
    assert (expected.origin.backend, pcm.origin.backend) == ("soundfile", "pyav")
    assert pcm.samples.shape == samples.shape
    rows = [
        int(np.abs(expected.samples - row).max(axis=1).argmin()) for row in pcm.samples
    ]  # FFmpeg orders 7.1 otherwise
    assert sorted(rows) == list(range(channels))
    assert np.abs(pcm.samples - expected.samples[rows]).max() <= TOLERANCES["decode/lossy"].max_abs


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ALAW"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"),
        ("ipod", "aac"), ("mov", "alac"), ("matroska", "pcm_s16le"), ("matroska", "pcm_f64le"),
    ],
)  # fmt: skip
def test_mono_is_exactly_the_mean_of_the_channels(form: str, codec: str, channels: int) -> None:
    encode = with_soundfile if form.isupper() else with_ffmpeg
    data = encode(chirp(2.0, RATE, channels), RATE, form, codec)
    pcm, mono = decoded(data), decoded(data, mono=True, native=True)
    assert (mono.origin.channels, str(mono.samples.dtype)) == (channels, "float32")
    assert mono.samples.flags.c_contiguous
    assert np.array_equal(mono.samples, pcm.samples.mean(axis=0, keepdims=True))


@pytest.mark.parametrize(("form", "subtype"), [
    *(("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "ULAW", "ALAW")), ("AIFF", "PCM_S8"), ("AU", "PCM_16"),
    ("CAF", "ULAW"), ("FLAC", "PCM_S8"), ("FLAC", "PCM_16"),
])  # fmt: skip
def test_what_has_16_bits_has_the_floats_of_libsndfile(form: str, subtype: str) -> None:
    data = with_soundfile(chirp(2.0, RATE, 2), RATE, form, subtype)
    assert np.array_equal(decoded(data).samples, by_libsndfile(data))


def test_amr_of_frames_without_sound_is_silence() -> None:
    """By hand: nobody here encodes AMR-WB."""
    pcm = decoded(b"#!AMR-WB\n" + b"\x7c" * 50)
    assert (pcm.origin.codec, pcm.origin.sample_rate, pcm.samples.shape) == ("amr_wb", 16_000, (1, 16_000))
    assert not pcm.samples.any()
    with pytest.raises(UnsupportedFormat, match="several channels"):
        decoded(b"#!AMR_MC1.0\n\0\0\0\2" + b"\x7c" * 50)


def test_mp3_in_wav_is_told_as_mp3_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    data = with_ffmpeg(chirp(2.0, RATE, 2), RATE, "wav", "libmp3lame", bit_rate=32_000)
    assert audio_info(data, sniff(data)).codec == "mp3"
    for start in (0.0, 1.0):
        pcm = decoded(data, start_seconds=start)
        assert (pcm.origin.codec, pcm.origin.backend) == ("mp3", "pyav")
    assert capfd.readouterr().err == ""


def test_caf_of_compressed_sound_is_refused() -> None:
    data = with_ffmpeg(chirp(0.5, RATE, 2), RATE, "caf", "alac")
    with pytest.raises(UnsupportedFormat, match="M4A"):
        decoded(data)


@pytest.mark.parametrize("form", ["flac", "mp4"])
def test_flac_without_a_length_is_as_with_one(form: str) -> None:
    samples = chirp(0.5, RATE, 2)
    if form == "mp4":
        data = with_ffmpeg(samples, RATE, "mp4", "flac")
        assert np.abs(decoded(data).samples - samples).max() <= 2.0**-15
        return
    flac = bytearray(with_soundfile(samples, RATE, "FLAC", "PCM_16"))
    expected = decoded(bytes(flac))
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    pcm = decoded(bytes(flac))
    assert (expected.origin.backend, pcm.origin.backend) == ("soundfile", "pyav")
    assert np.array_equal(pcm.samples, expected.samples)


NATIVE: dict[str, Callable[[Samples], bytes]] = {
    **{
        f"{form} {subtype}": lambda x, form=form, subtype=subtype: with_soundfile(x, RATE, form, subtype)  # type: ignore[misc]
        for form, subtype in (
            ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "ULAW"), ("WAV", "ALAW"), ("FLAC", "PCM_16"), ("FLAC", "PCM_S8"),
            ("AIFF", "PCM_16"),
        )
    },
    "m4a alac": lambda x: with_ffmpeg(x, RATE, "ipod", "alac", sample_format="s16p"),
    "mkv pcm": lambda x: with_ffmpeg(x, RATE, "matroska", "pcm_s16le"),
    "mkv flac": lambda x: with_ffmpeg(x, RATE, "matroska", "flac"),
}  # fmt: skip


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("start", [0.0, 0.1])
def test_sources_of_16_bits_come_as_they_are_where_that_is_asked_for(name: str, start: float) -> None:
    data = NATIVE[name](chirp(0.4, RATE, 2))
    floats, native = (decoded(data, native=asked, start_seconds=start).samples for asked in (False, True))
    assert native.dtype == np.int16
    assert np.array_equal(native.astype(np.float32) / 32_768, floats)


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "MPEG_LAYER_III"])
def test_other_sources_come_as_floats_whatever_is_asked_for(subtype: str) -> None:
    data = with_soundfile(chirp(0.4, RATE), RATE, "MP3" if "MPEG" in subtype else "WAV", subtype)
    assert decoded(data, native=True).samples.dtype == np.float32


LANGUAGES = {"eng": noise(0.3, RATE), "deu": chirp(0.4, RATE, 2), "und": noise(0.5, RATE, 2)}


@pytest.mark.parametrize(
    ("muxer", "codec"), [("mp4", "aac"), ("matroska", "libopus"), ("mpegts", "aac"), ("mp4", "alac")]
)
def test_a_stream_is_taken_by_its_place_or_its_language(muxer: str, codec: str) -> None:
    data = with_languages(LANGUAGES, RATE, muxer, codec)
    for place, (language, samples) in enumerate(LANGUAGES.items()):
        for name in (place, language, language.upper()):
            if language == "und" and isinstance(name, str) and muxer != "mp4":
                continue  # other containers store no language then
            pcm = decoded(data, stream=name)
            assert (pcm.origin.stream, pcm.origin.num_streams, pcm.origin.channels) == (place, 3, len(samples))
            assert abs(lag(pcm.samples[-1], samples[-1])) in (0, 1_024)
    assert decoded(data).origin.stream == 0
    assert audio_info(data, sniff(data), stream=1).channels == 2


@pytest.mark.parametrize("stream", [3, -1, 10**30, "fra", "", "eng "])
def test_a_stream_that_is_not_there_is_named_beside_those_that_are(stream: int | str) -> None:
    data = with_languages(LANGUAGES, RATE, "mp4", "aac")
    with pytest.raises(NoSuchStream, match=r"0 \('eng'\), 1 \('deu'\)"):
        decoded(data, stream=stream)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_file_of_one_stream_has_the_first_only(form: str) -> None:
    data = with_soundfile(chirp(0.2, RATE), RATE, form, {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(form, "PCM_16"))
    assert decoded(data, stream=0).origin.backend == "soundfile"
    for stream in (1, "eng"):
        with pytest.raises(NoSuchStream, match=r"are 0 \('no language'\)"):
            decoded(data, stream=stream)


def test_limits_on_claims_are_of_the_stream_that_is_taken() -> None:
    data = with_languages({"eng": chirp(0.2, RATE), "deu": chirp(0.2, RATE, 6)}, RATE, "mp4", "aac")
    limits = Limits(max_audio_channels=2)
    assert decoded(data, limits=limits).origin.channels == 1
    for stream in (1, "deu"):
        with pytest.raises(Exception, match="6 audio channels"):
            decoded(data, limits=limits, stream=stream)
