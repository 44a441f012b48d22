"""PCM to PCM: mean down-mix, soxr resampling, and the copy into a block. ``(channels, n)`` float32 throughout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.config import Limits
from gpuflow.errors import LimitExceeded, NoSuchStream
from gpuflow.media import ITEM_BYTES, TensorSpec
from gpuflow.memory import Lease
from gpuflow.ops.resample_table import resampled_count

MAX_FACTOR = 4_096  # soxr needs seconds for a filter of 200,000-fold, and never ends beyond 524,288-fold


def down_mix(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the channels, ``(1, n)``; what librosa, vLLM and SGLang take. swresample's is 1.414 times as loud."""
    return samples if samples.shape[0] == 1 else samples.mean(axis=0, keepdims=True)


def resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Resample by soxr HQ, each channel for itself: ``resampled_count`` samples, C-contiguous.

    Source: librosa's default, and so the features' reference; aliases lie 140 dB down where swresample's and
    torchaudio's defaults leave 7 to 13 dB.
    """
    if from_hz == to_hz:
        return samples
    import soxr

    # soxr wants (n, channels); one channel as a flat array takes its faster path
    channels = [soxr.resample(channel, from_hz, to_hz, quality="HQ") for channel in samples]
    return np.stack(channels) if len(channels) > 1 else channels[0][None]


def result_count(count: int, from_hz: int, to_hz: int, *, channels: int, limits: Limits) -> int:
    """How many samples a channel has after resampling.

    Raises:
        LimitExceeded: they would take more than ``Limits.max_pcm_bytes``, or the rate changes more than 4,096-fold.
        NoSuchStream: not one is left.
    """
    if not 1 / MAX_FACTOR <= to_hz / from_hz <= MAX_FACTOR:
        raise LimitExceeded(f"{from_hz} Hz to {to_hz} Hz: a rate changes {MAX_FACTOR}-fold at most")
    resampled = resampled_count(count, from_hz, to_hz)
    nbytes = ITEM_BYTES["float32"] * channels * resampled
    if nbytes > limits.max_pcm_bytes:
        raise LimitExceeded(f"{nbytes} bytes of audio at {to_hz} Hz; Limits.max_pcm_bytes is {limits.max_pcm_bytes}")
    if resampled == 0:
        raise NoSuchStream(f"{count} samples at {from_hz} Hz are less than one at {to_hz} Hz")
    return resampled


def to_rate(
    samples: NDArray[np.float32], from_hz: int, to_hz: int | None, *, mono: bool, limits: Limits
) -> NDArray[np.float32]:
    """Down-mix where ``mono``, then resample; ``to_hz=None`` keeps the rate.

    Raises:
        LimitExceeded, NoSuchStream: see ``result_count``.
    """
    channels, rate = 1 if mono else samples.shape[0], to_hz or from_hz
    result_count(samples.shape[1], from_hz, rate, channels=channels, limits=limits)
    return resample(down_mix(samples) if mono else samples, from_hz, rate)


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
