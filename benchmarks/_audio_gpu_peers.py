"""Other ways from 16 kHz samples on the host to Whisper's features of 30 s in a GPU's memory: each takes a batch of clips
and the device, and returns ``(clips, 128, 3000)`` float32 there, done.

Each keeps what it can between calls: pinned memory that clips are padded in, windows, filters, a compiled function, a
pipeline for each size of batch. On ``"cpu"`` the same calls run on the libraries' CPU paths, to show that they are right
before there is a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._audio_peers import (
    BANDS,
    FLOOR,
    HOP,
    N_FFT,
    RANGE,
    Waves,
    dali_pipeline,
    extractor,
    hann,
    hf_torch,
    torchaudio_mel,
    whisper_scaled,
)
from benchmarks._sounds import RATE

WINDOW_SECONDS = 30
GpuPeer = Callable[[Waves, str], Any]


def hf_cpu(waves: Waves, device: str, *, num_threads: int) -> Any:
    """Hugging Face's extractor on the CPU, then one copy to the GPU."""
    import torch

    torch.set_num_threads(num_threads)
    try:
        return _done(torch.from_numpy(hf_torch(waves, WINDOW_SECONDS)).to(device), device)
    finally:
        torch.set_num_threads(1)


def hf_device(waves: Waves, device: str) -> Any:
    """Hugging Face's extractor told to work on the GPU, which brings its result back to the host; then a copy there."""
    import torch

    made = extractor(WINDOW_SECONDS)(list(waves), sampling_rate=RATE, return_tensors="np", device=device)
    return _done(torch.from_numpy(made.input_features).to(device), device)


def torch_stft(waves: Waves, device: str) -> Any:
    """``torch.stft`` with window and filters kept on the GPU."""
    return _done(_from_sound(_staged(waves, device), *_tables(device)), device)


def torch_stft_compiled(waves: Waves, device: str) -> Any:
    """The same under ``torch.compile``."""
    return _done(_compiled()(_staged(waves, device), *_tables(device)), device)


def torchaudio_device(waves: Waves, device: str) -> Any:
    """torchaudio's transform on the GPU."""
    return _done(whisper_scaled(torchaudio_mel(device)(_staged(waves, device))[..., :-1]), device)


def dali_device(waves: Waves, device: str) -> Any:
    """DALI's GPU operators, with Whisper's window."""
    import torch

    pipeline, feed = _pipeline(len(waves), device)
    feed.append(list(_padded(waves, "cpu").numpy()))
    (out,) = pipeline.run()
    return _done(torch.utils.dlpack.from_dlpack(out.as_tensor()).clone(), device)


def cufft_matmul(waves: Waves, device: str) -> Any:
    """CuPy: cuFFT of framed, windowed clips, then a product of matrices; NumPy on the CPU."""
    import torch

    if device == "cpu":
        return torch.from_numpy(_by_arrays(_staged(waves, device).numpy(), np))
    import cupy

    return _done(torch.as_tensor(_by_arrays(cupy.asarray(_staged(waves, device)), cupy), device=device), device)


PEERS: dict[str, GpuPeer] = {
    "HF, 1 thread": functools.partial(hf_cpu, num_threads=1),
    "HF, 16 threads": functools.partial(hf_cpu, num_threads=16),
    "HF on the device": hf_device,
    "torch.stft": torch_stft,
    "torch.stft, compiled": torch_stft_compiled,
    "torchaudio": torchaudio_device,
    "DALI": dali_device,
    "CuPy cuFFT, matmul": cufft_matmul,
}
ON_CPU = frozenset({"HF, 1 thread", "HF, 16 threads"})
SLOW_TO_START = frozenset({"torch.stft, compiled"})


def _from_sound(sound: Any, window: Any, filters: Any) -> Any:
    import torch

    spectrum = torch.stft(sound, N_FFT, HOP, window=window, return_complex=True)[..., :-1]
    return whisper_scaled(filters @ (spectrum.real.square() + spectrum.imag.square()))


def _by_arrays(sound: Any, xp: Any) -> Any:
    window, filters = _array_tables(xp)
    padded = xp.pad(sound, ((0, 0), (N_FFT // 2, N_FFT // 2)), mode="reflect")
    frames = xp.lib.stride_tricks.as_strided(
        padded, (len(sound), sound.shape[1] // HOP, N_FFT), (padded.strides[0], HOP * 4, 4)
    )
    spectrum = xp.fft.rfft(frames * window)
    power = xp.square(spectrum.real) + xp.square(spectrum.imag)
    log = xp.log10(xp.maximum(xp.matmul(filters, power.transpose(0, 2, 1)), np.float32(FLOOR)))
    least = log.max(axis=(1, 2), keepdims=True) - np.float32(RANGE)
    return (xp.maximum(log, least) + np.float32(4)) * np.float32(0.25)


@functools.cache
def _room(count: int, pinned: bool) -> Any:
    import torch

    return torch.zeros((count, WINDOW_SECONDS * RATE), pin_memory=pinned)


def _padded(waves: Waves, device: str) -> Any:
    """The clips with zeros behind them, in memory that is kept: pinned where it is copied to a GPU."""
    room = _room(len(waves), device != "cpu")
    for row, wave in zip(room.numpy(), waves, strict=True):
        row[: len(wave)] = wave
        row[len(wave) :] = 0
    return room


def _staged(waves: Waves, device: str) -> Any:
    return _padded(waves, device).to(device, non_blocking=True)


@functools.cache
def _tables(device: str) -> tuple[Any, Any]:
    import torch

    return tuple(torch.from_numpy(table).to(device) for table in _float32_tables())  # type: ignore[return-value]


@functools.cache
def _array_tables(xp: Any) -> tuple[Any, Any]:
    return tuple(xp.asarray(table) for table in _float32_tables())


def _float32_tables() -> tuple[Any, Any]:
    filters = np.ascontiguousarray(extractor(WINDOW_SECONDS).mel_filters.T, np.float32)
    assert filters.shape == (BANDS, N_FFT // 2 + 1)
    return hann().astype(np.float32), filters


@functools.cache
def _compiled() -> Any:
    import torch

    return torch.compile(_from_sound)


@functools.cache
def _pipeline(count: int, device: str) -> tuple[Any, list[Any]]:
    return dali_pipeline(count, 1, device=device)


def _done(values: Any, device: str) -> Any:
    """What was queued is done."""
    if device != "cpu":
        import torch

        torch.cuda.current_stream().synchronize()
    return values
