"""The samples of libavcodec's frames, copied one after another into blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.kept import Samples
from gpuflow.errors import CorruptMedia, UnsupportedFormat

BLOCK_SAMPLES = 32_768
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}


class Frames:
    """Frames of one form one after another, as the decoder gives them: handed on one by one, the 1,300 of 30 s of AAC took
    as long again as their decoding. Copied as bytes, which takes half as long as by numpy."""

    def __init__(self, frame: Any) -> None:
        self.form = form(frame)
        if (dtype := _DTYPES.get(frame.format.packed.name)) is None:
            raise UnsupportedFormat(f"samples of {self.form[0]} are not supported: send 32 bits or fewer, or floats")
        planar, channels = bool(frame.format.is_planar), self.form[1]
        rows, self._each = (channels, 1) if planar else (1, channels)
        self._dtype = np.dtype(dtype)
        self._sample_bytes = self._each * self._dtype.itemsize
        self._nbytes = self.count = 0  # samples of a channel
        self._use(np.empty((rows, (BLOCK_SAMPLES + frame.samples) * self._sample_bytes), np.uint8))

    def take(self, frame: Any, samples: int) -> int:
        """Copy one of this form; how many samples there are then."""
        count, first = samples * self._sample_bytes, self._nbytes
        last = first + count
        if last > self._array.shape[1]:
            self._use(np.concatenate([self._array, np.empty_like(self._array, shape=(len(self._array), last))], axis=1))
        planes = frame.planes
        if len(planes) < len(self._memory):
            raise CorruptMedia(f"a frame of {self.form[1]} channels has {len(planes)} planes")
        for row, plane in zip(self._memory, planes, strict=False):  # of more than 8 PyAV lists some that are none
            row[first:last] = memoryview(plane)[:count]
        self._nbytes = last
        self.count += samples
        return self.count

    @property
    def samples(self) -> Samples:
        """``(channels, n)`` as they are, channels in the stream's order; valid until the next is taken."""
        rows = self._array.view(self._dtype)[:, : self.count * self._each]
        return rows if self._each == 1 else rows.reshape(-1, self._each).T

    def clear(self) -> None:
        """Begin again."""
        self._nbytes = self.count = 0

    def _use(self, array: NDArray[np.uint8]) -> None:
        self._array, self._memory = array, [memoryview(row) for row in array]


def form(frame: Any) -> tuple[str, int, int]:
    """How its samples are, how many channels, at which rate."""
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate
