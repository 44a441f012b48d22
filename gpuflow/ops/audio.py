"""PCM to PCM: mean down-mix, soxr resampling, and the copy into a block. ``(channels, n)`` float32 throughout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.config import Limits
from gpuflow.errors import LimitExceeded, NoSuchStream
from gpuflow.media import TensorSpec
from gpuflow.memory import Lease


def down_mix(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the channels, ``(1, n)``; what librosa, vLLM and SGLang take. swresample's is 1.414 times as loud."""
    return samples if samples.shape[0] == 1 else samples.mean(axis=0, keepdims=True)


def resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Resample by soxr HQ, each channel for itself: ``round(n * to_hz / from_hz)`` samples, C-contiguous.

    Source: librosa's default, and so the features' reference; aliases lie 140 dB down where swresample's and
    torchaudio's defaults leave 7 to 13 dB.
    """
    if from_hz == to_hz:
        return samples
    import soxr

    # soxr wants (n, channels); one channel as a flat array takes its faster path
    channels = [soxr.resample(channel, from_hz, to_hz, quality="HQ") for channel in samples]
    return np.stack(channels) if len(channels) > 1 else channels[0][None]


def to_rate(
    samples: NDArray[np.float32], from_hz: int, to_hz: int | None, *, mono: bool, limits: Limits
) -> NDArray[np.float32]:
    """Down-mix where ``mono``, then resample; ``to_hz=None`` keeps the rate.

    Raises:
        LimitExceeded: the result would take more than ``Limits.max_pcm_bytes``.
        NoSuchStream: no sample is left.
    """
    mixed, rate = down_mix(samples) if mono else samples, to_hz or from_hz
    nbytes = mixed.shape[0] * mixed.itemsize * round(mixed.shape[1] * rate / from_hz)
    if nbytes > limits.max_pcm_bytes:
        raise LimitExceeded(f"{nbytes} bytes of audio at {rate} Hz; Limits.max_pcm_bytes is {limits.max_pcm_bytes}")
    resampled = resample(mixed, from_hz, rate)
    if resampled.shape[1] == 0:
        raise NoSuchStream(f"{samples.shape[1]} samples at {from_hz} Hz are less than one at {rate} Hz")
    return resampled


def place(samples: NDArray[np.float32], lease: Lease, tensor: TensorSpec) -> None:
    """Copy the samples into a block: one memory copy on the host, one upload on a GPU."""
    target: Any = lease.array(tensor)
    if lease.device == "cpu":
        target[...] = samples
        return
    import cupy

    with target.device, cupy.cuda.Stream.ptds as stream:
        target.set(np.ascontiguousarray(samples), stream=stream)
        lease.record_stream(stream)
