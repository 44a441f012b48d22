"""Decoded samples in one array that grows as blocks come: what a header claims is memory only once it is written to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
_LEAST = 16_384  # samples of a channel
_BEYOND = 8_192  # a last packet is longer than what was encoded: nothing is copied for it
_MOST_BYTES = 16 << 20  # what a claim may ask for at once: 45 s of stereo at 44.1 kHz


class Kept:
    """``count`` samples of each of ``rows`` channels. ``expected``: how many a header claims."""

    def __init__(self, rows: int, dtype: np.dtype[Any], expected: int) -> None:
        most = _MOST_BYTES // (rows * dtype.itemsize)
        expected += _BEYOND
        self._array: Samples = np.empty((rows, max(_LEAST, min(expected, most))), dtype)
        self.count = 0

    def room(self, count: int) -> Samples:
        """Where the next ``count`` samples are to be written: ``(rows, count)``."""
        first, self.count = self.count, self.count + count
        if self.count > self._array.shape[1]:
            grown = np.empty((len(self._array), max(self.count, 2 * self._array.shape[1])), self._array.dtype)
            grown[:, :first] = self._array[:, :first]
            self._array = grown
        return self._array[:, first : self.count]

    def samples(self) -> Samples:
        """All of them, ``(rows, count)``, C-contiguous."""
        return np.ascontiguousarray(self._array[:, : self.count])


def mean_into(out: NDArray[np.float32], channels: NDArray[np.float32]) -> None:
    """Write the mean of ``(channels, n)`` to ``(n,)``: sums in the order of the channels and one division, as of
    ``samples.mean(axis=0)``, bit for bit but for the sign of zeros."""
    if len(channels) == 1:
        out[...] = channels[0]
        return
    np.add(channels[0], channels[1], out=out)
    for channel in channels[2:]:
        out += channel
    out /= np.float32(len(channels))
