"""Bad audio among good, here and in decode workers: each item ends in its own error or result, and none loses by another."""

from __future__ import annotations

import asyncio
import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.config import AudioOptions, Options
from gpuflow.errors import CorruptMedia, GpuflowError, LimitExceeded, NoSuchStream, UnsupportedFormat
from gpuflow.flow.sync import SyncFlow
from gpuflow.media import Outcome, Waveform
from tests.flow.audio_files import chirp, noise, with_ffmpeg, with_languages, with_soundfile
from tests.waiting import wait_until

RATE = 48_000


def _of_numbers(value: float) -> bytes:
    samples = chirp(0.5, 16_000, 2)
    samples[1, 5_000] = value
    return with_soundfile(samples, 16_000, "WAV", "FLOAT")


def _at_rate(rate: int) -> bytes:
    wav = bytearray(with_soundfile(chirp(0.5, 16_000), 16_000, "WAV", "PCM_16"))
    wav[24:28] = struct.pack("<I", rate)
    return bytes(wav)


BAD: dict[str, tuple[bytes, type[GpuflowError]]] = {
    "empty": (b"", CorruptMedia),
    "text": (b"<html></html>" * 20, UnsupportedFormat),
    "no samples": (with_soundfile(np.zeros((2, 0), np.float32), RATE, "WAV", "PCM_16"), NoSuchStream),
    "NaN": (_of_numbers(np.nan), CorruptMedia),
    "infinite": (_of_numbers(-np.inf), CorruptMedia),
    "1 Hz": (_at_rate(1), LimitExceeded),
    "655350 Hz": (_at_rate(655_350), LimitExceeded),
    "64 channels": (with_soundfile(np.zeros((64, 100), np.float32), RATE, "WAV", "PCM_16"), LimitExceeded),
    "an hour": (b"#!AMR-WB\n" + b"\x7c" * 180_000, LimitExceeded),
    "a video without sound": (with_ffmpeg(None, 0, "mp4", "", video=True), NoSuchStream),
    "half a header": (with_soundfile(chirp(0.5, RATE), RATE, "FLAC", "PCM_16")[:30], CorruptMedia),
    "AMR of several channels": (b"#!AMR_MC1.0\n\0\0\0\2" + bytes(100), UnsupportedFormat),
    "ALAC in CAF": (with_ffmpeg(chirp(0.5, RATE), RATE, "caf", "alac"), UnsupportedFormat),
}
GOOD = {
    "wav": with_soundfile(chirp(0.5, RATE), RATE, "WAV", "PCM_16"),
    "aiff": with_soundfile(chirp(0.5, RATE), RATE, "AIFF", "PCM_24"),
    "mp3": with_soundfile(chirp(0.5, RATE), RATE, "MP3", "MPEG_LAYER_III"),
    "ac3": with_ffmpeg(chirp(0.5, RATE), RATE, "ac3", "ac3"),
    "wma": with_ffmpeg(chirp(0.5, RATE), RATE, "asf", "wmav2", bit_rate=96_000),
    "amr": with_ffmpeg(noise(0.5, 8_000), 8_000, "amr", "libopencore_amrnb", bit_rate=12_200),
    "shorter than a window": with_soundfile(chirp(0.005, RATE), RATE, "WAV", "PCM_16"),
    "a video with sound": with_ffmpeg(chirp(0.5, RATE), RATE, "mp4", "aac", video=True),
}
TWO = with_languages({"eng": noise(0.5, RATE), "deu": chirp(0.5, RATE, 2)}, RATE, "matroska", "libopus")


def _all(flow: SyncFlow, items: list[bytes], options: Options) -> list[Outcome]:
    async def run() -> list[Outcome]:
        return [outcome async for outcome in flow.flow.stream(items, options=options, max_in_flight=8, ordered=True)]

    return asyncio.run_coroutine_threadsafe(run(), flow._loop).result(60.0)


@pytest.mark.parametrize("options", [AudioOptions(sample_rate=16_000), AudioOptions(features="whisper-80")])
def test_every_item_ends_in_its_own_error_or_result(options: AudioOptions, flow: SyncFlow) -> None:
    bad = [BAD[name] for name in BAD if name != "an hour" or options.features is None]  # features are of its beginning
    items: list[tuple[bytes, type[GpuflowError] | None]] = [*bad, *((data, None) for data in GOOD.values())]
    items = [items[place] for place in np.random.default_rng(1).permutation(len(items))]
    alone = {data: _numbers(flow, data, options) for data in GOOD.values()}
    for outcome, (data, error) in zip(_all(flow, [data for data, _ in items], options), items, strict=True):
        if error is None:
            assert outcome.media is not None
            with outcome.media as media:
                assert np.array_equal(media.numpy(), alone[data])
        else:
            assert type(outcome.error) is error
            assert 400 <= error.http_status < 500
    wait_until(lambda: flow.slab.statistics().live_leases == 0)


def _numbers(flow: SyncFlow, data: bytes, options: AudioOptions) -> NDArray[np.float32]:
    with flow.load(data, options=options) as media:
        copied: NDArray[np.float32] = media.numpy().copy()
        return copied


@pytest.mark.parametrize("name", BAD)
def test_the_error_is_the_same_in_a_worker_as_here(name: str, flow: SyncFlow) -> None:
    data, error = BAD[name]
    with pytest.raises(error) as raised:
        flow.load(data, options=AudioOptions())
    assert type(raised.value) is error
    assert flow.slab.statistics().live_leases == 0


def test_a_stream_is_named_in_a_worker_as_here(flow: SyncFlow) -> None:
    for stream, channels in (("eng", 1), (1, 2)):
        with flow.load(TWO, options=AudioOptions(stream=stream, mono=False)) as media:
            assert isinstance(media, Waveform)
            assert media.shape[0] == channels
            assert (media.metadata.stream, media.metadata.num_streams) == (channels - 1, 2)
    for stream in ("fra", 2, 1 << 40):
        with pytest.raises(NoSuchStream, match=r"0 \('eng'\)"):
            flow.load(TWO, options=AudioOptions(stream=stream))


def test_a_section_is_sought_in_a_worker_as_here(flow: SyncFlow) -> None:
    data = with_ffmpeg(noise(9.0, RATE), RATE, "ipod", "alac")
    whole = _numbers(flow, data, AudioOptions())
    part = _numbers(flow, data, AudioOptions(start_seconds=7.0, duration_seconds=1.0))
    assert np.array_equal(part, whole[:, 7 * RATE : 8 * RATE])
