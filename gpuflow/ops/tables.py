"""Tables that kernels read, in GPU memory: each made once, bounded, safe from any thread and for any stream."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpuflow.ops.kernels import Launch
from gpuflow.ops.staging import staging

Tables = Callable[[Hashable, Callable[[], Any]], int]
"""``(key, make)`` to the address of the array that ``make`` returns, where the kernel can read it."""

MAX_TABLE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """``uploaded``: the event behind its copy."""

    array: Any
    uploaded: Any


@dataclass(slots=True, eq=False)
class _Shelf:
    """Tables that are let go together. ``users``: calls that have addresses of them and have not queued all yet;
    ``reads``: events behind what was queued."""

    tables: dict[Hashable, _Table] = field(default_factory=dict)
    nbytes: int = 0
    users: int = 0
    reads: list[Any] = field(default_factory=list)


class DeviceTables:
    """The tables of one GPU; ``device_tables`` keeps one a GPU, for all kernels.

    Its lock is held to look tables up and for nothing else: what one batch takes to be made ready stops no other.
    """

    def __init__(self, device_index: int) -> None:
        import cupy

        self._staging = staging(device_index)
        with cupy.cuda.Device(device_index):
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self._shelf = _Shelf()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Of the tables that are given to whoever asks now."""
        return self._shelf.nbytes

    def queue(self, launches: Callable[[Tables], Iterable[Launch]], *, stream: Any) -> None:
        """Queue launches on CuPy's current device and ``stream``, which must be the current one, with the tables that
        they ask for. None is queued unless all can be.

        Raises:
            BackendUnavailable: a kernel cannot be compiled here.
        """
        given: list[_Table] = []

        def address(key: Hashable, make: Callable[[], Any]) -> int:
            given.append(self._table(shelf, key, make))
            return int(given[-1].array.data.ptr)

        with self._reading(stream) as shelf:
            made = tuple(launches(address))
            for launch in made:
                launch.compile()
            for table in given:  # whichever thread has asked for it first
                if not table.uploaded.done:
                    stream.wait_event(table.uploaded)
            for launch in made:
                launch.queue()

    @contextmanager
    def _reading(self, stream: Any) -> Iterator[_Shelf]:
        """The shelf of one call, which outlasts what the call queues."""
        with self._lock:
            if self._shelf.nbytes > MAX_TABLE_BYTES:  # sizes come from outside
                self._let_go(self._shelf)
                self._shelf = _Shelf()
            shelf = self._shelf
            shelf.users += 1
        try:
            yield shelf
        finally:
            read = stream.record()
            with self._lock:
                shelf.users -= 1
                shelf.reads = [event for event in shelf.reads if not event.done] + [read]
                if shelf is not self._shelf:
                    self._let_go(shelf)

    def _let_go(self, shelf: _Shelf) -> None:
        """Give its memory back, unless somebody is about to queue what reads it: CuPy gives it to what is uploaded behind
        the reads."""
        if shelf.users:
            return
        for read in shelf.reads:
            self._stream.wait_event(read)
        shelf.tables.clear()

    def _table(self, shelf: _Shelf, key: Hashable, make: Callable[[], Any]) -> _Table:
        with self._lock:
            found = shelf.tables.get(key)
        if found is not None:
            return found
        made = self._uploaded(make())
        with self._lock:
            found = shelf.tables.setdefault(key, made)
            shelf.nbytes += made.array.nbytes if found is made else 0  # two threads may have made it at once
        return found

    def _uploaded(self, values: Any) -> _Table:
        import cupy

        stored = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        with self._stream:
            array = cupy.empty(stored.nbytes, cupy.uint8)
            self._staging.copy([stored], [0], int(array.data.ptr), stream=self._stream)
            return _Table(array, self._stream.record())


@functools.cache
def device_tables(device_index: int) -> DeviceTables:
    """The one of that GPU."""
    return DeviceTables(device_index)
