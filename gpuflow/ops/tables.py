"""Tables that kernels read, in GPU memory: each made once, bounded, safe from any thread and for any stream."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from gpuflow.ops.kernels import Launch

Tables = Callable[[Hashable, Callable[[], Any]], int]
"""``(key, make)`` to the address of the array that ``make`` returns, where the kernel can read it."""

MAX_TABLE_BYTES = 64 << 20


class DeviceTables:
    """The tables of one GPU; ``device_tables`` keeps one a GPU, for all kernels."""

    def __init__(self, device_index: int) -> None:
        import cupy

        self._device = cupy.cuda.Device(device_index)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self._uploaded: Any = None
        self._arrays: dict[Hashable, Any] = {}
        self.nbytes = 0
        self._lock = threading.Lock()

    def queue(self, launches: Callable[[Tables], Iterable[Launch]], *, stream: Any) -> None:
        """Queue launches on CuPy's current device and ``stream``, which must be the current one, with the tables that
        they ask for.

        Raises:
            BackendUnavailable: a kernel cannot be compiled here.
        """
        with self._lock:
            self._make_room()
            made = tuple(launches(self._address))
            if self._uploaded is not None:
                stream.wait_event(self._uploaded)  # whichever thread has asked for them
            for launch in made:
                launch.queue()

    def _address(self, key: Hashable, make: Callable[[], Any]) -> int:
        import cupy

        if key not in self._arrays:
            with self._stream:
                self._arrays[key] = cupy.asarray(make())
                self._uploaded = self._stream.record()
            self.nbytes += self._arrays[key].nbytes
        return int(self._arrays[key].data.ptr)

    def _make_room(self) -> None:
        """Before a launch has addresses of tables, and with nothing queued that reads them: sizes come from outside."""
        if self.nbytes > MAX_TABLE_BYTES:
            self._device.synchronize()
            self._arrays.clear()
            self.nbytes = 0


@functools.cache
def device_tables(device_index: int) -> DeviceTables:
    """The one of that GPU."""
    return DeviceTables(device_index)
