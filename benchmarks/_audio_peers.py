"""Other ways from 16 kHz samples to Whisper's features on the CPU: each takes a batch of clips and the window they are
padded to, in seconds, and returns ``(clips, 128, frames)`` float32.

All keep what servers keep between requests: extractors, windows and filters, and a DALI pipeline for each size of batch.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._sounds import RATE

Waves = Sequence[NDArray[np.float32]]
Peer = Callable[[Waves, int], Any]
N_FFT, HOP, BANDS, FLOOR, RANGE = 400, 160, 128, 1e-10, 8.0
_kept = threading.local()


def hf_numpy(waves: Waves, window_seconds: int) -> Any:
    """``WhisperFeatureExtractor``'s route without torch."""
    return _extracted(extractor(window_seconds, by_numpy=True), waves)


def hf_torch(waves: Waves, window_seconds: int) -> Any:
    """``WhisperFeatureExtractor`` as it is where torch is installed."""
    return _extracted(extractor(window_seconds), waves)


def by_torchaudio(waves: Waves, window_seconds: int) -> Any:
    """``MelSpectrogram`` with Whisper's settings over the whole batch, then its logarithm and clamp."""
    import torch

    power = torchaudio_mel()(torch.from_numpy(padded(waves, window_seconds)))[..., :-1]
    return whisper_scaled(power).numpy()


def by_librosa(waves: Waves, window_seconds: int) -> Any:
    """``librosa.feature.melspectrogram`` over the whole batch."""
    import librosa

    settings: dict[str, Any] = {"sr": RATE, "n_fft": N_FFT, "hop_length": HOP, "n_mels": BANDS, "pad_mode": "reflect"}
    power = librosa.feature.melspectrogram(y=padded(waves, window_seconds), **settings)[..., :-1]
    log = np.log10(np.maximum(power, FLOOR))
    return (np.maximum(log, log.max(axis=(1, 2), keepdims=True) - RANGE) + 4) / 4


def by_dali(waves: Waves, window_seconds: int) -> Any:
    """DALI's CPU operators, with Whisper's window: DALI's own Hann is shifted by half a sample."""
    import torch

    key = (len(waves), torch.get_num_threads())
    if not hasattr(_kept, "pipelines"):
        _kept.pipelines = {}
    if key not in _kept.pipelines:
        _kept.pipelines[key] = dali_pipeline(*key, device="cpu")
    pipeline, feed = _kept.pipelines[key]
    feed.append(list(padded(waves, window_seconds)))
    (out,) = pipeline.run()
    return np.array(out.as_tensor())


FEATURES: dict[str, Peer] = {
    "HF numpy": hf_numpy,
    "HF torch": hf_torch,
    "torchaudio": by_torchaudio,
    "librosa": by_librosa,
    "DALI CPU": by_dali,
}


def padded(waves: Waves, window_seconds: int) -> NDArray[np.float32]:
    """``(clips, n)``: zeros behind each clip up to the window."""
    room = np.zeros((len(waves), window_seconds * RATE), np.float32)
    for row, wave in zip(room, waves, strict=True):
        row[: len(wave)] = wave
    return room


def whisper_scaled(power: Any) -> Any:
    """Logarithm, clamp to each clip's maximum and scale of ``(clips, bands, frames)``, by torch, on any device."""
    import torch

    log = torch.clamp(power, min=FLOOR).log10()
    log = torch.maximum(log, log.amax(dim=(-2, -1), keepdim=True) - RANGE)
    return log.add_(4.0).mul_(0.25)


@functools.cache
def extractor(window_seconds: int, *, by_numpy: bool = False) -> Any:
    """Hugging Face's, for so long a window."""
    from transformers import WhisperFeatureExtractor

    made = WhisperFeatureExtractor(feature_size=BANDS, chunk_length=window_seconds)
    if by_numpy:
        made._torch_extract_fbank_features = made._np_extract_fbank_features
    return made


@functools.cache
def torchaudio_mel(device: str = "cpu") -> Any:
    """torchaudio's transform with Whisper's settings."""
    import torchaudio

    settings: dict[str, Any] = {"n_mels": BANDS, "norm": "slaney", "mel_scale": "slaney", "pad_mode": "reflect"}
    return torchaudio.transforms.MelSpectrogram(RATE, n_fft=N_FFT, hop_length=HOP, **settings).to(device)


def hann() -> NDArray[np.float64]:
    """Whisper's window, periodic."""
    return np.hanning(N_FFT + 1)[:-1]


def dali_pipeline(count: int, num_threads: int, *, device: str) -> tuple[Any, list[Any]]:
    """A pipeline of padded clips to features, and the list that it takes its next batch from."""
    from nvidia.dali import Pipeline, fn, math, types

    feed: list[Any] = []

    def following() -> Any:
        return feed.pop()

    pipeline = Pipeline(
        batch_size=count, num_threads=num_threads, device_id=None if device == "cpu" else 0,
        exec_async=False, exec_pipelined=False, prefetch_queue_depth=1,
    )  # fmt: skip
    with pipeline:
        sound = fn.external_source(source=following, dtype=types.FLOAT, ndim=1)
        sound = sound if device == "cpu" else sound.gpu()
        power = fn.spectrogram(
            sound, nfft=N_FFT, window_length=N_FFT, window_step=HOP, window_fn=list(hann()),
            center_windows=True, reflect_padding=True, power=2,
        )  # fmt: skip
        mel = fn.mel_filter_bank(
            power, sample_rate=RATE, nfilter=BANDS, freq_high=RATE / 2, mel_formula="slaney", normalize=True
        )
        log = fn.to_decibels(mel[:, :-1], multiplier=1.0, reference=1.0, cutoff_db=-10.0)
        pipeline.set_outputs((math.max(log, fn.reductions.max(log) - RANGE) + 4.0) * 0.25)
    pipeline.build()
    return pipeline, feed


def _extracted(made: Any, waves: Waves) -> Any:
    return made(list(waves), sampling_rate=RATE, return_tensors="np").input_features
