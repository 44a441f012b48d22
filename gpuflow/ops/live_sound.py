"""Chunks of a live source as one channel at one rate: checked, mixed down, resampled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, InvalidOptions
from gpuflow.ops.pcm import MAX_LEVEL
from gpuflow.values import shown

Samples = NDArray[np.float32]


class LiveSound:
    """What comes at ``sample_rate`` in ``channels`` becomes ``(n,)`` float32 at ``to_hz``: bit for bit what the mean of the
    channels of the whole clip, resampled by soxr HQ, gives.

    Raises:
        InvalidOptions: a rate or number of channels beyond ``Limits``' defaults.
    """

    def __init__(self, sample_rate: int, *, channels: int, to_hz: int) -> None:
        self.sample_rate = _rate(sample_rate)
        self.channels = _channels(channels)
        self._resampler = _resampler(sample_rate, to_hz)

    def take(self, samples: Any) -> Samples:
        """What a chunk adds, which may be nothing yet. One that is refused changes nothing.

        Raises:
            InvalidOptions: another shape or type.
            CorruptMedia: a sample is no finite number, or far beyond -1..1.
        """
        mono = _mono(_checked(samples, self.channels))
        return mono if self._resampler is None else self._resampler.resample_chunk(mono)

    def finish(self) -> Samples:
        """What the resampler still holds."""
        rest = np.zeros(0, np.float32)
        return rest if self._resampler is None else self._resampler.resample_chunk(rest, last=True)


def _checked(samples: Any, channels: int) -> Samples:
    """``(channels, n)`` float32."""
    given: Any = np.asarray(samples)
    if given.dtype not in (np.float32, np.int16):
        raise InvalidOptions(f"samples are float32 or int16; got {given.dtype}")
    rows: Samples = given[None] if given.ndim == 1 and channels == 1 else given
    if rows.ndim != 2 or len(rows) != channels:
        wanted = "(n,)" if channels == 1 else f"({channels}, n)"
        raise InvalidOptions(f"samples have the shape {wanted}; got {given.shape}")
    if rows.dtype == np.int16:
        return np.multiply(rows, 2.0**-15, dtype=np.float32)
    if rows.size and not np.abs(rows).max() <= MAX_LEVEL:  # not true of NaN
        raise CorruptMedia("the chunk holds samples that are no numbers (NaN, infinite, or far beyond -1..1)")
    return rows


def _mono(rows: Samples) -> Samples:
    """New memory: ``down_mix``'s mean, in an order of sums that neither the chunk's size nor its strides change."""
    mixed: Samples = rows[0].copy()
    for row in rows[1:]:
        mixed += row
    mixed /= np.float32(len(rows))
    return mixed


def _rate(sample_rate: int) -> int:
    limits = Limits()
    least, most = limits.min_sample_rate_hz, limits.max_sample_rate_hz
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, int) or not least <= sample_rate <= most:
        raise InvalidOptions(f"sample_rate lies in {least} .. {most} Hz; got {shown(sample_rate)}")
    return sample_rate


def _channels(channels: int) -> int:
    most = Limits().max_audio_channels
    if isinstance(channels, bool) or not isinstance(channels, int) or not 1 <= channels <= most:
        raise InvalidOptions(f"channels are 1 .. {most}; got {shown(channels)}")
    return channels


def _resampler(from_hz: int, to_hz: int) -> Any:
    if from_hz == to_hz:
        return None
    import soxr

    return soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")
