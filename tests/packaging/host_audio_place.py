"""The host's build of the audio kernels in place of a GPU: the checklist's steps compute what the kernels' source says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops import kernels
from gpuflow.ops.audio_gpu import Clip, batch_launches
from gpuflow.ops.kernels import Launch
from tests.kernels_host.building import HostKernel, HostTables, Schedule, build_for_host
from tests.kernels_host.check_image_views import HostMemory


class HostAudioPlace:
    """``Place`` in host memory; its clock is the host's."""

    device = "cpu"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[object, HostKernel] = {}
        self._memory, self._tables = HostMemory(), HostTables()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        made = np.empty(shape, dtype)
        made.view(np.uint8)[...] = 0xAA
        return made

    def copied(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.copy()

    def host(self, array: Any) -> NDArray[Any]:
        return np.asarray(array)

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def write(self, clips: Sequence[Clip]) -> None:
        for launch in self.launches(clips):
            self.queue(launch)

    def launches(self, clips: Sequence[Clip]) -> list[Launch]:
        return batch_launches(clips, tables=self._tables, upload=self._memory.upload, scratch=self._memory.scratch)

    def queue(self, launch: Launch) -> None:
        code = kernels.source(launch.name)
        key = (launch.name, launch.defines, code)
        if key not in self._built:
            library = self._folder / f"{len(self._built)}.so"
            self._built[key] = HostKernel(build_for_host(launch.name, code, library, launch.defines))
        self._built[key].run(launch, Schedule(block=(1, 1)))

    def microseconds(self, run: Callable[[], Any], *, rounds: int = 20) -> float:
        begin = time.perf_counter()
        run()
        return round(1e6 * (time.perf_counter() - begin), 2)
