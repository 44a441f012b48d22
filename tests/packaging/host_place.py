"""The host's memory in place of a GPU's: the checklist's steps run on nvImageCodec's CPU backend, whose pixels are real.

Streams are none, and what is queued "late" is written at once: this shows that the steps run and count, and nothing of a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks._gpu_place import UNTOUCHED


class StreamWiringOnly:
    ptr = 0

    def synchronize(self) -> None:
        """Nothing is queued."""


class HostPlace:
    """``Place`` in host memory."""

    device = "cpu"
    kinds: Mapping[str, str | None] = {"default": None, "hardware": "HW_GPU_ONLY"}

    def empty(self, shape: tuple[int, ...]) -> Any:
        return np.full(shape, UNTOUCHED, np.uint8)

    def host(self, array: Any) -> Any:
        return np.asarray(array)

    def stream(self) -> StreamWiringOnly:
        return StreamWiringOnly()

    def overwrite_late(self, array: Any, stream: Any, *, level: int, milliseconds: float) -> None:
        array[...] = level

    def settle(self) -> None:
        """Everything has run."""

    def used_bytes(self) -> int:
        return 1 << 20
