"""PCM as it lies in a WAV: the same samples as libsndfile reads, or none at all."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import soundfile

from gpuflow.codecs.audio import StoredPcm, decode_audio, stored_pcm
from gpuflow.codecs.base import MediaType
from gpuflow.config import Limits
from gpuflow.errors import LimitExceeded
from gpuflow.flow.context import Deadline
from gpuflow.ops.pcm import PcmSamples, to_float
from tests.faults.test_probe_fuzz import mutated
from tests.flow.audio_files import Samples, chirp, with_ffmpeg, with_soundfile
from tests.flow.test_audio_formats import by_libsndfile
from tests.tally import Tally

WAV = MediaType("wav", "audio", "wav")
ENCODINGS = {
    "PCM_U8": "u8", "PCM_16": "s16", "PCM_24": "s24", "PCM_32": "s32", "FLOAT": "f32", "DOUBLE": "f64", "ULAW": "mulaw",
    "ALAW": "alaw",
}  # fmt: skip
FORMS = ("WAV", "WAVEX", "RF64")
WORDS = (b"data", b"fmt ", b"LIST", b"\xff" * 4, b"\0" * 4)


def read(data: bytes, found: StoredPcm) -> Samples:
    """What the GPU's route takes the bytes for: ``(channels, n)`` float32."""
    samples = np.frombuffer(data, np.uint8, found.nbytes, found.offset)
    return to_float(PcmSamples(samples, found.encoding, found.channels, found.num_samples, found.sample_rate))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("subtype", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_stored_samples_are_those_that_libsndfile_reads(form: str, subtype: str, channels: int) -> None:
    data = with_soundfile(chirp(0.05, 16_000, channels), 16_000, form, subtype)
    found = stored_pcm(data, WAV, Limits())
    assert found is not None
    assert (found.encoding, found.channels, found.sample_rate) == (ENCODINGS[subtype], channels, 16_000)
    assert found.num_samples == 800
    assert np.array_equal(read(data, found), by_libsndfile(data))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 10**9])
def test_a_recording_whose_size_was_never_written_is_all_that_is_there(size: int) -> None:
    data = bytearray(with_soundfile(chirp(0.05, 16_000), 16_000, "WAV", "PCM_16"))
    data[40:44] = struct.pack("<I", size)
    found = stored_pcm(bytes(data), WAV, Limits())
    if found is not None:
        assert np.array_equal(read(bytes(data), found), by_libsndfile(bytes(data)))
    assert (found is not None) == (size != 0)  # of which libsndfile says that it holds nothing


def test_ffmpegs_files_with_tags_and_long_headers_are_read() -> None:
    for muxing in ({}, {"rf64": "always"}, {"write_bext": "1"}):
        data = with_ffmpeg(chirp(0.1, 16_000, 2), 16_000, "wav", "pcm_s24le", muxing=muxing)
        found = stored_pcm(data, WAV, Limits())
        assert found is not None
        assert np.array_equal(read(data, found), by_libsndfile(data))


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM"])
def test_what_has_to_be_decoded_is_not_stored(subtype: str) -> None:
    assert stored_pcm(with_soundfile(chirp(0.1, 16_000), 16_000, "WAV", subtype), WAV, Limits()) is None
    flac = with_soundfile(chirp(0.1, 16_000), 16_000, "FLAC", "PCM_16")
    assert stored_pcm(flac, MediaType("flac", "audio", "flac"), Limits()) is None
    assert stored_pcm(flac, WAV, Limits()) is None


def test_several_data_chunks_are_left_to_libsndfile() -> None:
    data = with_soundfile(chirp(0.05, 16_000), 16_000, "RF64", "PCM_16")
    assert stored_pcm(data + b"data" + struct.pack("<I", 1_600) + bytes(1_600), WAV, Limits()) is None


def test_more_chunks_than_the_limits_allow_are_left_to_the_decoder_that_refuses_them() -> None:
    data = bytearray(with_soundfile(chirp(0.05, 16_000), 16_000, "WAV", "PCM_16"))
    data[12:12] = 8 * (b"note" + struct.pack("<I", 2) + b"\0\0")
    assert stored_pcm(bytes(data), WAV, Limits()) is not None
    few = Limits(max_boxes=8)
    assert stored_pcm(bytes(data), WAV, few) is None
    with pytest.raises(LimitExceeded, match="max_boxes is 8"):
        decode_audio(bytes(data), WAV, limits=few, deadline=Deadline(20.0))


def damaged(rng: random.Random) -> bytes:
    """A WAV whose header lies, with other chunks behind it, or cut."""
    data = bytearray(with_soundfile(chirp(0.01, 16_000, rng.choice((1, 2, 3))), 16_000, rng.choice(FORMS), rng.choice(list(ENCODINGS))))  # fmt: skip
    if rng.random() < 0.3:
        return mutated(bytes(data), rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(min(len(data), 90))
        if rng.random() < 0.5:
            data[at] = rng.choice((0, 1, 2, 3, 4, 8, 16, 24, 32, 64, 127, 128, 255))
        else:
            data[at : at + 4] = rng.choice((*WORDS, struct.pack("<I", rng.randrange(2_000))))
    if rng.random() < 0.3:
        data += rng.choice(WORDS) + struct.pack("<I", rng.randrange(300)) + rng.randbytes(300)
    return bytes(data[: rng.randrange(30, len(data))] if rng.random() < 0.3 else data)


def test_of_files_that_lie_nothing_is_stored_or_what_libsndfile_reads(tally: Tally) -> None:
    rng, stored = random.Random(8), 0
    for _ in range(4_000):
        data = damaged(rng)
        if (found := stored_pcm(data, WAV, Limits())) is None:
            continue
        stored += 1
        try:
            expected = by_libsndfile(data)
        except soundfile.LibsndfileError:
            pytest.fail("libsndfile does not read it")
        with np.errstate(all="ignore"):
            assert np.array_equal(read(data, found), expected, equal_nan=True)
    assert stored > 500
    tally("damaged WAV, as it is stored", cases=4_000, stored=stored)
