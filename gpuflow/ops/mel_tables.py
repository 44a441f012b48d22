"""Window and mel filters of a spec, derived in float64 and rounded once to what it is computed in."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.presets.mel import MelSpec

Float64 = NDArray[np.float64]
_POVEY = 0.85
_STEP_UP = math.log(6.4) / 27  # Slaney's mel above 1 kHz: 27 of them are a factor of 6.4


@functools.lru_cache(maxsize=32)
def mel_tables(spec: MelSpec) -> tuple[NDArray[Any], NDArray[Any]]:
    """Window ``(win_length,)`` and filters ``(n_mels, n_fft // 2 + 1)``, of the spec's precision, read-only.

    Source: ``window_function`` and ``mel_filter_bank`` of transformers' ``audio_utils``; Slaney's Auditory Toolbox, HTK
    and Kaldi for the mel scales. librosa and torchaudio build theirs in float32, which differs by its rounding.
    """
    tables = _window(spec).astype(spec.precision), _filters(spec).astype(spec.precision)
    for table in tables:
        table.setflags(write=False)
    return tables


def inset(spec: MelSpec) -> int:
    """Samples of a frame in front of its window."""
    return (spec.n_fft - spec.win_length) // 2 if spec.window_at == "centre" else 0


def reach(spec: MelSpec) -> int:
    """Samples from a frame's first to behind its last."""
    return spec.n_fft if spec.window_at == "centre" else spec.win_length + spec.frame_extra


def _window(spec: MelSpec) -> Float64:
    length = spec.win_length if spec.periodic else max(1, spec.win_length - 1)
    wave = np.cos(2 * np.pi * np.arange(spec.win_length) / length)
    if spec.window == "ones":
        return np.ones(spec.win_length)
    if spec.window == "hamming":
        return np.asarray(0.54 - 0.46 * wave)
    hann = np.asarray(0.5 - 0.5 * wave)
    return np.asarray(hann**_POVEY) if spec.window == "povey" else hann


def _filters(spec: MelSpec) -> Float64:
    low, high = (_to_mel(np.float64(hz), spec.mel_scale) for hz in (spec.f_min, spec.f_max))
    edges = np.linspace(low, high, spec.n_mels + 2)
    bins = np.linspace(0, spec.sample_rate / 2, spec.n_fft // 2 + 1)
    if spec.triangles == "mel":
        bins = _to_mel(bins, spec.mel_scale)
    else:
        edges = _to_hz(edges, spec.mel_scale)
    below, centre, above = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((bins - below) / (centre - below), (above - bins) / (above - centre)))
    return np.asarray(triangles * 2 / (above - below) if spec.mel_norm == "slaney" else triangles)


def _to_mel(hz: Float64 | np.float64, scale: str) -> Float64:
    if scale == "htk":
        return np.asarray(2595 * np.log10(1 + hz / 700))
    if scale == "kaldi":
        return np.asarray(1127 * np.log(1 + hz / 700))
    return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1000) / 1000) / _STEP_UP)


def _to_hz(mel: Float64, scale: str) -> Float64:
    if scale == "htk":
        return np.asarray(700 * (10 ** (mel / 2595) - 1))
    if scale == "kaldi":
        return np.asarray(700 * (np.exp(mel / 1127) - 1))
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * _STEP_UP))
