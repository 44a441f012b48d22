"""Mel features equal Hugging Face's extractor and a float64 computation written independently."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuflow.ops.audio import resample
from gpuflow.ops.mel import live_frames, log_mel
from gpuflow.presets.mel import MelSpec, mel_spec
from tests.parity.tolerances import TOLERANCES

RATE = 16_000
Signal = NDArray[np.float32]


def _speech_like(seconds: float) -> Signal:
    """A pulse train through three formants, in syllables: 60 dB between its loudest and quietest parts."""
    t = np.arange(int(seconds * RATE)) / RATE
    pitch = 2 * np.pi * np.cumsum(110 + 20 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    voice = sum(
        np.sin(k * pitch) / k * np.exp(-(((k * 110 - f) / 300) ** 2)) for k in range(1, 40) for f in (500, 1500, 2500)
    )
    syllables = 0.001 + np.maximum(0, np.sin(2 * np.pi * 3 * t)) ** 2
    return np.asarray(0.3 * voice * syllables, np.float32)


def _noise(count: int, level: float) -> Signal:
    return (np.random.default_rng(count).standard_normal(count) * level).astype(np.float32)


def _tone(hz: float, seconds: float) -> Signal:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


SIGNALS: dict[str, Signal] = {
    "speech-like": _speech_like(7.3),
    "noise": _noise(50_001, 0.1),
    "tone": _tone(440.0, 3.0),
    "tone at the edge": _tone(7_999.0, 1.0),
    "noise at -80 dB": _noise(32_000, 1e-4),
    "80 dB drop": np.concatenate([_noise(20_000, 0.3), _noise(20_000, 3e-5)]),
    "silence": np.zeros(16_000, np.float32),
    "one sample": np.array([0.25], np.float32),
    "less than the reflection": _noise(150, 0.1),
    "exactly 30 s": _noise(480_000, 0.1),
    "one sample short of 30 s": _noise(479_999, 0.1),
    "longer than 30 s": _noise(500_000, 0.1),
}


@functools.cache
def _extractor(n_mels: int) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=n_mels)


def _float64_reference(signal: Signal, n_mels: int, filters: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.zeros(480_000)
    padded[: min(len(signal), 480_000)] = signal[:480_000]
    padded = np.pad(padded, 200, mode="reflect")
    window = np.hanning(401)[:-1]
    spectra = np.stack([np.fft.rfft(padded[160 * t : 160 * t + 400] * window) for t in range(3000)])
    logs = np.log10(np.maximum(filters.T @ (np.abs(spectra) ** 2).T, 1e-10))
    assert logs.shape == (n_mels, 3000)
    return np.asarray((np.maximum(logs, logs.max() - 8) + 4) / 4)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("name", SIGNALS)
def test_features_equal_hugging_face(name: str, n_mels: int) -> None:
    signal = SIGNALS[name]
    expected = _extractor(n_mels)(signal, sampling_rate=RATE, return_attention_mask=True, return_tensors="np")
    features, valid_length = log_mel(signal, mel_spec(f"whisper-{n_mels}"), xp=np)
    assert features.shape == (n_mels, 3000)
    assert features.dtype == np.float32
    assert valid_length == expected["attention_mask"][0].sum()
    assert np.abs(features - expected["input_features"][0]).max() <= TOLERANCES["mel/numpy"].max_abs


@pytest.mark.parametrize("name", ["speech-like", "80 dB drop", "tone at the edge", "longer than 30 s"])
def test_features_equal_a_float64_computation(name: str) -> None:
    filters = _extractor(128).mel_filters
    features, _ = log_mel(SIGNALS[name], mel_spec("whisper-128"), xp=np)
    expected = _float64_reference(SIGNALS[name], 128, filters)
    assert np.abs(features - expected).max() <= TOLERANCES["mel/numpy-float64"].max_abs


def test_features_of_a_spec_from_a_config_equal_that_extractor() -> None:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=64, n_fft=512, hop_length=200, chunk_length=5)
    signal = SIGNALS["speech-like"][:60_000]
    expected = extractor(signal, sampling_rate=RATE, return_tensors="np")["input_features"][0]
    features, _ = log_mel(signal, MelSpec.from_hf(extractor.to_dict()), xp=np)
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() <= TOLERANCES["mel/numpy"].max_abs


@pytest.mark.parametrize("count", [0, 1, 39, 40, 41, 159, 160, 161, 16_000, 479_999, 480_000])
def test_frames_beyond_the_live_ones_touch_no_sample(count: int) -> None:
    padded = np.pad(np.pad(np.ones(count), (0, 480_000 - count)), 200, mode="reflect")
    touched = [t for t in range(3000) if padded[160 * t : 160 * t + 400].any()]
    assert live_frames(count, mel_spec("whisper-80")) == (touched[-1] + 1 if touched else 0)


def test_features_are_written_to_the_array_that_is_given() -> None:
    out = np.full((80, 3000), np.nan, np.float32)
    features, _ = log_mel(SIGNALS["noise"], mel_spec("whisper-80"), xp=np, out=out)
    assert features is out
    assert np.isfinite(out).all()


def test_features_of_no_sample_are_those_of_silence() -> None:
    features, valid_length = log_mel(np.zeros(0, np.float32), mel_spec("whisper-80"), xp=np)
    assert valid_length == 0
    assert np.all(features == np.float32(-1.5))


@pytest.mark.parametrize("from_hz", [8_000, 22_050, 44_100, 48_000])
def test_resampling_equals_librosas_default(from_hz: int) -> None:
    import librosa

    signal = np.stack([_noise(from_hz, 0.1), _noise(from_hz + 1, 0.1)[:-1]])
    expected = librosa.resample(signal, orig_sr=from_hz, target_sr=RATE, res_type="soxr_hq")
    got = resample(signal, from_hz, RATE)
    assert got.shape == expected.shape
    assert got.flags.c_contiguous
    assert np.abs(got - expected).max() <= TOLERANCES["resample/soxr"].max_abs


@pytest.mark.gpu
@pytest.mark.parametrize("name", SIGNALS)
def test_features_of_the_gpu_equal_those_of_the_cpu(name: str) -> None:
    import cupy

    spec = mel_spec("whisper-128")
    expected, valid_length = log_mel(SIGNALS[name], spec, xp=np)
    features, got_length = log_mel(cupy.asarray(SIGNALS[name]), spec, xp=cupy)
    assert got_length == valid_length
    assert np.abs(features.get() - expected).max() <= TOLERANCES["mel/cupy"].max_abs
