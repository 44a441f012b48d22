"""Pinned host memory that uploads to a GPU go through: so much and no more, whatever their sizes."""

from __future__ import annotations

import functools
import queue
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.errors import BackendUnavailable

BLOCKS = ((16, 256 << 10), (4, 8 << 20))
"""How many of how many bytes: for records and tables, that none waits for a batch's samples; and for samples, where one is
filled while another is copied. Neither is measured on a GPU yet."""


@dataclass(slots=True, eq=False)
class _Block:
    """``event``: behind the copy that read it last."""

    nbytes: int
    memory: NDArray[np.uint8] | None = None
    event: Any = None


class Staging:
    """The blocks for one GPU's uploads, pinned when they are first needed; ``staging`` keeps one a GPU. Safe from any thread.

    CuPy's own uploads pin as many bytes as they copy, and its pool keeps each size for good: sizes that come from outside
    would pin more and more of the host's memory.
    """

    def __init__(self, blocks: Sequence[tuple[int, int]] = BLOCKS) -> None:
        self._rings: list[tuple[int, queue.SimpleQueue[_Block]]] = []
        for count, nbytes in blocks:
            self._rings.append((nbytes, queue.SimpleQueue()))
            for _ in range(count):
                self._rings[-1][1].put(_Block(nbytes))

    def copy(self, arrays: Sequence[NDArray[np.uint8]], starts: Sequence[int], address: int, *, stream: Any) -> None:
        """Queue on a CuPy ``stream`` what copies arrays of bytes to ``address + start`` each: one copy for all of them, or one
        a block. The arrays ascend; what lies between them gets bytes that say nothing. They may be changed once this
        returns.

        Raises:
            BackendUnavailable: CUDA does not pin memory.
        """
        nbytes = starts[-1] + arrays[-1].nbytes if arrays else 0
        size, ring = next((ring for ring in self._rings if nbytes <= ring[0]), self._rings[-1])
        for first in range(0, nbytes, size):
            block = ring.get()  # the one that was used longest ago
            try:
                last = min(first + size, nbytes)
                _copy_one(block, _parts(arrays, starts, first, last), address + first, last - first, stream)
            finally:
                ring.put(block)


def _copy_one(
    block: _Block, parts: list[tuple[int, NDArray[np.uint8]]], address: int, nbytes: int, stream: Any
) -> None:
    import cupy

    if block.event is not None:
        block.event.synchronize()
    if block.memory is None:
        block.memory = _pinned(block.nbytes)
    for at, part in parts:
        block.memory[at : at + len(part)] = part
    kind = cupy.cuda.runtime.memcpyHostToDevice
    cupy.cuda.runtime.memcpyAsync(address, block.memory.ctypes.data, nbytes, kind, stream.ptr)
    block.event = stream.record()


def _parts(
    arrays: Sequence[NDArray[np.uint8]], starts: Sequence[int], first: int, last: int
) -> list[tuple[int, NDArray[np.uint8]]]:
    """What lies in ``first .. last``, and where there."""
    inside = (
        (max(0, start - first), array[max(0, first - start) : max(0, last - start)])
        for array, start in zip(arrays, starts, strict=True)
    )
    return [(at, part) for at, part in inside if len(part)]


def _pinned(nbytes: int) -> NDArray[np.uint8]:
    import cupy

    try:
        memory = cupy.cuda.alloc_pinned_memory(nbytes)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendUnavailable(f"CUDA does not pin {nbytes} bytes of host memory: {error}") from error
    return np.frombuffer(memory, np.uint8, nbytes)


@functools.cache
def staging(device_index: int) -> Staging:
    """The one of that GPU."""
    return Staging()
