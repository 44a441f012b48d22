"""Where a slab's bytes come from: a memfd on the host, one ``cudaMalloc`` on a GPU. Allocated once, freed at close."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import weakref
from dataclasses import dataclass
from typing import Any, Protocol

from gpuflow.device import Device
from gpuflow.errors import BackendUnavailable, InvalidOptions

_HOST_REGISTER_PORTABLE_AND_MAPPED = 1 | 2
_F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1; absent from fcntl's names
_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | _F_SEAL_FUTURE_WRITE


def device_id(device: str) -> int:
    """The number in ``"cuda:N"``; 0 for ``"cpu"``."""
    return int(device.partition(":")[2] or 0)


class Backing(Protocol):
    """One contiguous range of memory."""

    device: str
    mem_type: str  # NIXL's name: "DRAM" or "VRAM"
    address: int
    nbytes: int

    def array_interface(self, offset: int, nbytes: int) -> dict[str, Any]: ...
    def hold(self) -> object: ...
    def close(self) -> None: ...


class HostMemory:
    """An anonymous file in memory, mapped once. Other processes of this host can map it too, to read: the file is
    sealed, so that nobody else can write to it, or cut it short under a reader. ``shared``: decode workers that are given
    its descriptor map it to write."""

    mem_type = "DRAM"
    device = "cpu"

    def __init__(self, nbytes: int, *, name: str = "gpuflow-slab", shared: bool = False) -> None:
        import numpy as np

        self.nbytes = nbytes
        self.file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.pinned = False
        self.shared = shared
        self._close_file = weakref.finalize(self, os.close, self.file)
        try:
            os.ftruncate(self.file, nbytes)
            self._map: mmap.mmap | None = mmap.mmap(self.file, nbytes)
        except (OSError, OverflowError, ValueError) as error:
            self._close_file()
            raise InvalidOptions(f"this machine does not give {nbytes} bytes of memory: {error}") from error
        with contextlib.suppress(OSError):  # before Linux 5.1; the descriptors we hand out are read-only anyway
            fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, _SEALS & ~_F_SEAL_FUTURE_WRITE if shared else _SEALS)
        self.address = int(np.frombuffer(self._map, np.uint8).ctypes.data)

    def array_interface(self, offset: int, nbytes: int) -> dict[str, Any]:
        """What numpy needs to view ``nbytes`` at ``offset`` (``__array_interface__`` version 3)."""
        return {"shape": (nbytes,), "typestr": "|u1", "data": (self.address + offset, False), "version": 3}

    def hold(self) -> object:
        """What keeps the bytes mapped for as long as it lives, although the memory may be closed."""
        return self.buffer(0, self.nbytes)

    def buffer(self, offset: int, nbytes: int) -> memoryview:
        """A writable view of the bytes; it keeps the mapping alive."""
        if self._map is None:
            raise ValueError("the memory is closed")
        return memoryview(self._map)[offset : offset + nbytes]

    def pin(self) -> None:
        """Page-lock the memory, so that a GPU copies from and to it at full speed.

        Raises:
            BackendUnavailable: CUDA refuses, say for want of lockable memory.
        """
        import cupy

        try:
            cupy.cuda.runtime.hostRegister(self.address, self.nbytes, _HOST_REGISTER_PORTABLE_AND_MAPPED)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise BackendUnavailable(f"CUDA does not pin {self.nbytes} bytes of host memory: {error}") from error
        self._unpin = weakref.finalize(self, _unpin, self.address)
        self._unpin.atexit = False  # the driver does it with the process, and may be gone before
        self.pinned = True

    def close(self) -> None:
        """Give the memory back, once the last view of it is gone; harmless when repeated."""
        if self._map is None:
            return
        if self.pinned:
            self.pinned = False
            self._unpin()
        mapping, self._map = self._map, None
        self._close_file()
        with contextlib.suppress(BufferError):  # views are left, say in an error's traceback: it goes with the last
            mapping.close()


class DeviceMemory:
    """One plain ``cudaMalloc``: not torch's allocator, whose expandable segments are 600 times slower to transfer.

    Raises:
        InvalidOptions: the GPU does not give so many bytes.
    """

    mem_type = "VRAM"

    def __init__(self, nbytes: int, device: Device) -> None:
        import cupy

        self.nbytes = nbytes
        self.device = device.name
        self._index = device.index
        self._holds: weakref.WeakSet[_Hold] = weakref.WeakSet()
        try:
            with cupy.cuda.Device(self._index):
                self.address = int(cupy.cuda.runtime.malloc(nbytes))
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise InvalidOptions(f"{device.name} does not give {nbytes} bytes of memory: {error}") from error
        self._free = weakref.finalize(self, _free_device_memory, self.address, self._index)
        self._free.atexit = False  # the driver frees it with the process, and may be gone before

    def array_interface(self, offset: int, nbytes: int) -> dict[str, Any]:
        """What CuPy needs to view ``nbytes`` at ``offset`` (``__cuda_array_interface__`` version 3)."""
        return {"shape": (nbytes,), "typestr": "|u1", "data": (self.address + offset, False), "version": 3}

    def hold(self) -> object:
        """What keeps the memory for as long as it lives, although it may be closed."""
        held = _Hold(self)
        self._holds.add(held)
        return held

    def close(self) -> None:
        """Free the memory, or have the last hold do so; harmless when repeated."""
        if not self._holds:
            self._free()


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Hold:
    memory: DeviceMemory


def _unpin(address: int) -> None:
    import cupy

    cupy.cuda.runtime.hostUnregister(address)


def _free_device_memory(address: int, index: int) -> None:
    import cupy

    with cupy.cuda.Device(index):
        cupy.cuda.runtime.deviceSynchronize()
        cupy.cuda.runtime.free(address)
