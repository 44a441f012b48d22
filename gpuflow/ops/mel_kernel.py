"""The GPU's part of ``gpuflow/ops/mel_launch.py``: memory and queueing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from gpuflow.errors import BackendUnavailable
from gpuflow.ops.batch_memory import BatchMemory
from gpuflow.ops.mel_jobs import MelJob
from gpuflow.ops.mel_launch import launches, obstacle
from gpuflow.ops.tables import device_tables


class MelKernel:
    """The kernels on one GPU. Safe from any thread; ``mel_kernel`` keeps one a GPU."""

    def __init__(self, device_index: int) -> None:
        import cupy

        self._device = cupy.cuda.Device(device_index)
        self._tables = device_tables(device_index)

    def write(self, jobs: Sequence[MelJob], *, stream: Any) -> None:
        """Queue on a CuPy ``stream`` what writes the features of every job: of any specs, all side by side.

        Samples lie on this GPU, and stay as they are until the stream is done with them; so does what the features are
        written to, whose lease the caller notes the stream on.

        Raises:
            BackendUnavailable: no kernel makes these features (``obstacle``), or it cannot be compiled here.
        """
        for spec in {job.spec for job in jobs}:
            if (reason := obstacle(spec)) is not None:
                raise BackendUnavailable(reason)
        with self._device, stream:
            memory = BatchMemory(self._device.id, stream)
            self._tables.queue(
                lambda tables: launches(jobs, tables=tables, upload=memory.upload, scratch=memory.scratch),
                stream=stream,
            )


@functools.cache
def mel_kernel(device_index: int) -> MelKernel:
    """The one of that GPU."""
    return MelKernel(device_index)
