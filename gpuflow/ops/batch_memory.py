"""GPU memory of what one batch queues: what it uploads, scratch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.staging import staging

ALIGN_BYTES = 256


class BatchMemory:
    """Of one batch, all of which is queued on one CuPy ``stream``, the current one, of a GPU, the current device.

    It is freed as soon as all is queued: CuPy gives it to what is queued on the same stream later, and on this thread's own
    stream to this thread.
    """

    def __init__(self, device_index: int, stream: Any) -> None:
        self._staging = staging(device_index)
        self._stream = stream
        self._kept: list[Any] = []

    def upload(self, array: NDArray[np.uint8]) -> int:
        """The address of a copy; the array may be changed then."""
        return int(self.copies([array])[0].data.ptr)

    def copies(self, arrays: Sequence[NDArray[np.uint8]]) -> list[Any]:
        """CuPy copies of arrays of bytes, all in one upload, each beginning at a multiple of ``ALIGN_BYTES``; the arrays
        may be changed then."""
        ends = itertools.accumulate(-(-array.nbytes // ALIGN_BYTES) * ALIGN_BYTES for array in arrays)
        starts = [0, *ends][:-1]
        memory = self._empty(starts[-1] + arrays[-1].nbytes if arrays else 0)
        self._staging.copy(arrays, starts, int(memory.data.ptr), stream=self._stream)
        return [memory[start : start + array.nbytes] for array, start in zip(arrays, starts, strict=True)]

    def scratch(self, nbytes: int) -> int:
        """The address of so many bytes that say nothing."""
        return int(self._empty(nbytes).data.ptr)

    def _empty(self, nbytes: int) -> Any:
        import cupy

        self._kept.append(cupy.empty(nbytes, cupy.uint8))
        return self._kept[-1]
