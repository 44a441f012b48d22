"""The GPU's part of ``gpuflow/ops/views.py``: memory, copies and queueing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.batch_memory import BatchMemory
from gpuflow.ops.tables import device_tables
from gpuflow.ops.views import Job, launches, unfilled


class ViewsKernel:
    """The kernel on one GPU. Safe from any thread; ``views_kernel`` keeps one a GPU."""

    def __init__(self, device_index: int) -> None:
        import cupy

        self._device = cupy.cuda.Device(device_index)
        self._tables = device_tables(device_index)

    def write(self, jobs: Sequence[Job], *, stream: Any) -> None:
        """Queue on a CuPy ``stream`` what fills the pixels of every job: all views, their repeats, zeros where none lies.

        A picture on the host is copied first, from where it may be changed once this returns; one on the GPU must stay as
        it is until the stream is done with it.

        Raises:
            InvalidOptions: a side that no table has.
            BackendUnavailable: the kernel cannot be compiled here.
        """
        import cupy

        with self._device, stream:
            memory = BatchMemory(self._device.id, stream)
            here = [_on_gpu(job, stream) for job in jobs]
            uploaded = stream.record()
            self._tables.queue(
                lambda tables: launches(here, tables=tables, upload=memory.upload, scratch=memory.scratch),
                stream=stream,
            )
            for address, nbytes in map(unfilled, jobs):
                if nbytes:
                    cupy.cuda.runtime.memsetAsync(address, 0, nbytes, stream.ptr)
            if any(job.picture.on_host for job in jobs):
                uploaded.synchronize()  # what was copied may be used again


@functools.cache
def views_kernel(device_index: int) -> ViewsKernel:
    """The one of that GPU."""
    return ViewsKernel(device_index)


def _on_gpu(job: Job, stream: Any) -> Job:
    if not job.picture.on_host:
        return job
    return replace(job, picture=replace(job.picture, pixels=_copied(job.picture.pixels, stream)))


def _copied(pixels: NDArray[np.uint8], stream: Any) -> Any:
    """The same picture in the GPU's memory, its samples in the order in which they lie on the host."""
    import cupy

    order = sorted(range(3), key=lambda axis: -abs(pixels.strides[axis]))
    flips = tuple(slice(None, None, -1 if pixels.strides[axis] < 0 else 1) for axis in order)
    stored = np.ascontiguousarray(pixels.transpose(order)[flips])
    copy = cupy.empty(stored.shape, cupy.uint8)
    copy.set(stored, stream=stream)
    return copy[flips].transpose(np.argsort(order).tolist())
