"""Sections by time: what is sought equals that part of the whole, in every format, and costs no decoding of what is before."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuflow.codecs.audio import decode_audio
from gpuflow.codecs.pcm import Gathering, Pcm
from gpuflow.codecs.probe import sniff
from gpuflow.config import Limits
from gpuflow.errors import InvalidOptions, LimitExceeded
from gpuflow.flow.context import Deadline
from tests.flow.audio_files import Samples, chirp, noise, with_ffmpeg, with_soundfile
from tests.parity.tolerances import TOLERANCES
from tests.unit.probe_files import mp3, remuxed

HOUR = Limits(max_audio_seconds=3_700.0, max_pcm_bytes=4 << 30)
SECONDS = 12.0
Make = Callable[[], bytes]


def sound(rate: int, channels: int = 2) -> Samples:
    """Tones, noise and silence, so that a bit reservoir fills and empties."""
    return np.concatenate(
        [chirp(4.0, rate, channels), np.zeros((channels, rate), np.float32), noise(SECONDS - 5.0, rate, channels)],
        axis=1,
    )


def _of_libsndfile(form: str, subtype: str, rate: int = 44_100, channels: int = 2) -> Make:
    return lambda: with_soundfile(sound(rate, channels), rate, form, subtype)


def _of_ffmpeg(muxer: str, codec: str, rate: int = 48_000, channels: int = 2, **settings: Any) -> Make:
    return lambda: with_ffmpeg(sound(rate, channels), rate, muxer, codec, **settings)


EXACT: dict[str, Make] = {
    **{f"wav {subtype}": _of_libsndfile("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ALAW")},
    **{f"wav {subtype}": _of_libsndfile("WAV", subtype) for subtype in ("IMA_ADPCM", "MS_ADPCM")},
    "aiff": _of_libsndfile("AIFF", "PCM_24"),
    "caf": _of_libsndfile("CAF", "PCM_16"),
    "au": _of_libsndfile("AU", "ULAW"),
    "flac": _of_libsndfile("FLAC", "PCM_24"),
    "ogg vorbis": _of_libsndfile("OGG", "VORBIS"),
    "ogg vorbis slow": _of_libsndfile("OGG", "VORBIS", 8_000, 1),
    "ogg flac": _of_ffmpeg("ogg", "flac"),
    "m4a alac": _of_ffmpeg("ipod", "alac"),
    "m4a aac": _of_ffmpeg("ipod", "aac", options={"aac_pns": "0"}),
    "m4a aac slow": _of_ffmpeg("ipod", "aac", 16_000, 1, bit_rate=24_000, options={"aac_pns": "0"}),
    "mp4 fragmented": _of_ffmpeg(
        "mp4", "aac", options={"aac_pns": "0"}, muxing={"movflags": "frag_keyframe+empty_moov"}
    ),
    "mp4 opus": _of_ffmpeg("mp4", "libopus"),
    "mp4 with pictures": _of_ffmpeg("mp4", "aac", video=True, options={"aac_pns": "0"}),
    "mov pcm": _of_ffmpeg("mov", "pcm_s24le"),
    "matroska aac": _of_ffmpeg("matroska", "aac", options={"aac_pns": "0"}),
    "matroska flac": _of_ffmpeg("matroska", "flac"),
    "matroska mp3": _of_ffmpeg("matroska", "libmp3lame", bit_rate=32_000),
    "matroska pcm": _of_ffmpeg("matroska", "pcm_s16le"),
    "matroska vorbis": lambda: remuxed(_of_libsndfile("OGG", "VORBIS", 48_000)(), "ogg", "matroska"),
    "webm opus": _of_ffmpeg("webm", "libopus"),
    "adts": _of_ffmpeg("adts", "aac", options={"aac_pns": "0"}),
    "mpegts": _of_ffmpeg("mpegts", "aac", options={"aac_pns": "0"}),
    "avi mp3": _of_ffmpeg("avi", "libmp3lame"),
    "ac3": _of_ffmpeg("ac3", "ac3"),
    "wma": _of_ffmpeg("asf", "wmav2", bit_rate=96_000),
    "amr": _of_ffmpeg("amr", "libopencore_amrnb", 8_000, 1, bit_rate=12_200),
}
NEAR: dict[str, Make] = {
    "ogg opus": _of_libsndfile("OGG", "OPUS", 48_000),
    "ogg opus slow": _of_ffmpeg("ogg", "libopus", bit_rate=24_000),
    "webm opus slow": _of_ffmpeg("webm", "libopus", bit_rate=16_000, options={"frame_duration": "60"}),
    "mp3": _of_libsndfile("MP3", "MPEG_LAYER_III"),
    "mp3 slow": _of_libsndfile("MP3", "MPEG_LAYER_III", 16_000, 1),
    "mp3 of 32 kbit/s": _of_ffmpeg("mp3", "libmp3lame", bit_rate=32_000),
    "mp3 without a tag": _of_ffmpeg("mp3", "libmp3lame", muxing={"write_xing": "0", "id3v2_version": "0"}),
    "wav mp3": _of_ffmpeg("wav", "libmp3lame"),
    "wav mp3 of 32 kbit/s": _of_ffmpeg("wav", "libmp3lame", bit_rate=32_000),
    "mp3 vbr": lambda: mp3("VARIABLE", 0.9, seconds=SECONDS),
}


@functools.cache
def file_of(name: str) -> bytes:
    """The file of that name, encoded once."""
    return (EXACT | NEAR)[name]()


def decoded(data: bytes, start: float = 0.0, duration: float | None = None, limits: Limits = HOUR) -> Pcm:
    """By the library."""
    return decode_audio(
        data, sniff(data), limits=limits, deadline=Deadline(60.0), start_seconds=start, duration_seconds=duration
    )


@functools.cache
def whole(name: str) -> Pcm:
    """All of a file, decoded from its beginning."""
    return decoded(file_of(name))


@pytest.mark.parametrize("name", [*EXACT, *NEAR])
@given(start=st.floats(0.0, SECONDS - 0.05), duration=st.one_of(st.none(), st.floats(0.001, SECONDS)))
@settings(max_examples=6, deadline=None, derandomize=True)
def test_a_section_equals_that_part_of_the_whole(name: str, start: float, duration: float | None) -> None:
    expected, got = whole(name), decoded(file_of(name), start, duration)
    first = round(start * expected.origin.sample_rate)
    last = None if duration is None else first + max(1, round(duration * expected.origin.sample_rate))
    part = expected.samples[:, first:last]
    assert got.samples.shape == part.shape
    if name in EXACT:
        assert np.array_equal(got.samples, part)
    else:
        leaf = "decode/section-opus" if name == "ogg opus slow" else "decode/section"
        assert np.abs(got.samples - part).max() <= TOLERANCES[leaf].max_abs


@pytest.mark.parametrize("name", ["ogg vorbis", "ogg vorbis slow", "ogg opus", "mp3", "flac", "m4a aac", "webm opus"])
def test_every_way_to_end_is_right(name: str) -> None:
    """libsndfile misplaces what it seeks on a Vorbis stream's last page."""
    expected = whole(name)
    total = expected.samples.shape[1] / expected.origin.sample_rate
    for before in (1.5, 1.0, 0.5, 0.2, 0.1, 0.05, 0.01, 0.001):
        got = decoded(file_of(name), total - before).samples
        part = expected.samples[:, round((total - before) * expected.origin.sample_rate) :]
        assert got.shape == part.shape
        assert np.abs(got - part).max() <= TOLERANCES["decode/section"].max_abs


def test_noise_that_aac_substitutes_is_other_noise_of_the_same_level() -> None:
    data = with_ffmpeg(sound(48_000), 48_000, "ipod", "aac")
    expected, got = decoded(data).samples[:, 8 * 48_000 :], decoded(data, 8.0).samples
    assert got.shape == expected.shape
    assert got.std() == pytest.approx(expected.std(), rel=0.02)
    assert np.corrcoef(got[0], expected[0])[0, 1] > 0.9
    early = decoded(data, 4.0).samples  # decoded from the beginning: not worth the difference
    assert np.array_equal(early, decoded(data).samples[:, 4 * 48_000 :])


STEPPED = [name for name in EXACT | NEAR if name.split()[0] in ("m4a", "mp4", "mov", "webm", "adts", "mpegts", "avi", "ogg", "mp3", "flac", "wav", "matroska")]  # fmt: skip
STEPPED = [name for name in STEPPED if name != "matroska vorbis"]


@pytest.mark.parametrize("name", STEPPED)
def test_what_lies_before_a_section_is_not_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put, taken = Gathering.put, []

    def counted(gathering: Gathering, block: Samples) -> bool:
        taken.append(block.shape[1])
        return put(gathering, block)

    monkeypatch.setattr(Gathering, "put", counted)
    decoded(file_of(name), SECONDS - 1.0, 0.5)
    seconds = sum(taken) / whole(name).origin.sample_rate
    assert seconds < 5.0  # two to be warm, what is wanted, and the first packets or a block


@pytest.mark.parametrize(("name", "start"), [("m4a aac", 0.0), ("m4a aac", 9.0), ("matroska flac", 9.0), ("adts", 2.0)])
def test_what_lies_behind_a_section_is_not_decoded(name: str, start: float, monkeypatch: pytest.MonkeyPatch) -> None:
    put, taken = Gathering.put, []

    def counted(gathering: Gathering, block: Samples) -> bool:
        taken.append((gathering.seen, block.shape[1]))
        return put(gathering, block)

    monkeypatch.setattr(Gathering, "put", counted)
    decoded(file_of(name), start, 0.25)
    seen, count = taken[-1]
    assert (seen + count) / whole(name).origin.sample_rate < start + 0.25 + 0.1  # within a frame


@pytest.mark.parametrize("name", ["wav PCM_16", "flac", "mp3", "m4a aac", "webm opus", "ogg vorbis"])
def test_a_section_that_begins_after_the_end_is_told_the_length(name: str) -> None:
    with pytest.raises(InvalidOptions, match=r"after the end: the audio lasts 12"):
        decoded(file_of(name), 3_000.0)


@pytest.mark.parametrize("name", ["wav PCM_16", "flac", "mp3", "m4a aac", "webm opus", "adts", "ogg opus"])
def test_what_is_stepped_over_counts_for_the_limit(name: str) -> None:
    with pytest.raises(LimitExceeded, match="max_audio_seconds"):
        decoded(file_of(name), 9.0, 0.5, Limits(max_audio_seconds=8.0))


@pytest.mark.parametrize("name", ["mp3", "ogg vorbis", "webm opus", "matroska flac", "adts", "flac", "caf"])
def test_a_section_of_a_file_that_breaks_off_is_that_of_what_is_left(name: str) -> None:
    data = file_of(name)
    cut = data[: len(data) * 9 // 10]
    left = decoded(cut).samples
    rate = whole(name).origin.sample_rate
    got = decoded(cut, 8.0).samples
    assert got.shape == left[:, 8 * rate :].shape
    assert np.abs(got - left[:, 8 * rate :]).max() <= TOLERANCES["decode/section"].max_abs
