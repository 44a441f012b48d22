"""GPU memory of what one batch queues: records that it uploads, scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class BatchMemory:
    """Of one batch, on CuPy's current device and stream. It is freed as soon as all is queued: CuPy gives it to what is
    queued on the same stream later."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def upload(self, array: NDArray[np.uint8]) -> int:
        """The address of a copy; the array may be changed then."""
        import cupy

        self._kept.append(cupy.asarray(array))
        return int(self._kept[-1].data.ptr)

    def scratch(self, nbytes: int) -> int:
        """The address of so many bytes that say nothing."""
        import cupy

        self._kept.append(cupy.empty(nbytes, cupy.uint8))
        return int(self._kept[-1].data.ptr)
