"""As much of CuPy as the kernel's launch sees, in host memory: it shows how things are wired, and nothing of a GPU."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from gpuflow.media import TensorSpec
from gpuflow.ops.kernels import Launch
from tests.kernels_host.conftest import Run


class Array(np.ndarray[Any, Any]):
    """An array that calls itself a GPU's."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self) -> Any:
        return Device(0)

    @property
    def __cuda_array_interface__(self) -> Any:
        return self.__array_interface__

    def set(self, array: Any, stream: Any) -> None:
        assert array.flags.c_contiguous
        assert array.shape == self.shape
        stream.queued += 1
        self[...] = array


class Device(AbstractContextManager[None]):
    def __init__(self, index: int) -> None:
        self.id = index

    def synchronize(self) -> None:
        raise AssertionError("nothing waits for a whole device")

    def __exit__(self, *exc: object) -> None:
        """Nothing to set back."""


class Event:
    """``after``: how many copies of memory that is not pinned were queued before it."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.synchronized = False
        self.done = False

    def synchronize(self) -> None:
        self.synchronized = True


class Stream(AbstractContextManager["Stream"]):
    ptds: ClassVar[Stream]

    def __init__(self, non_blocking: bool = False, ptr: int = 64) -> None:
        self.ptr = ptr
        self.synchronized = 0
        self.queued = 0
        self.recorded: list[Event] = []
        self.awaited: list[Event] = []

    def synchronize(self) -> None:
        self.synchronized += 1

    def record(self) -> Event:
        self.recorded.append(Event(self.queued))
        return self.recorded[-1]

    def wait_event(self, event: Event) -> None:
        self.awaited.append(event)

    def __exit__(self, *exc: object) -> None:
        """Nothing to set back."""


class Lease:
    """A block whose arrays call themselves a GPU's."""

    device = "cuda:0"

    def __init__(self, nbytes: int) -> None:
        self._bytes = np.zeros(nbytes, np.uint8)
        self.recorded: list[Any] = []

    def array(self, spec: TensorSpec) -> Any:
        dtype = "uint16" if spec.dtype == "bfloat16" else spec.dtype
        return self._bytes[spec.offset : spec.offset + spec.nbytes].view(dtype).reshape(spec.shape).view(Array)

    def record_stream(self, stream: Any) -> None:
        self.recorded.append(stream)


def module(run: Run) -> ModuleType:
    """To stand in for ``cupy``; kernels run on the host."""
    fake: Any = ModuleType("cupy")
    stream = Stream(ptr=2)
    Stream.ptds = stream
    fake.uint8 = np.uint8
    fake.empty = lambda shape, dtype: np.full(shape, 0xAA, dtype).view(Array)
    fake.asarray = lambda array: np.array(array).view(Array)
    fake.cuda = SimpleNamespace(
        Device=Device,
        Stream=Stream,
        get_current_stream=lambda: stream,
        alloc_pinned_memory=lambda nbytes: bytearray(nbytes),
        runtime=SimpleNamespace(
            memcpy2DAsync=_copy_rows, memcpyAsync=_copy, memcpyHostToDevice=1, memsetAsync=_fill, CUDARuntimeError=_CudaError
        ),
    )  # fmt: skip
    fake.launched = []

    def launch(launch: Launch) -> None:
        fake.launched.append(launch)
        run(launch)

    fake.kernel = lambda name, defines: (
        lambda grid, block, arguments, shared_mem: launch(Launch(name, defines, grid, block, arguments, shared_mem))
    )
    return fake  # type: ignore[no-any-return]


class _CudaError(RuntimeError):
    """What CuPy raises where CUDA refuses."""


def _fill(address: int, value: int, nbytes: int, stream: int) -> None:
    assert stream == Stream.ptds.ptr
    ctypes.memset(address, value, nbytes)


def _copy(target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
    """From pinned memory."""
    assert kind == 1
    ctypes.memmove(target, source, nbytes)


def _copy_rows(
    target: int, target_pitch: int, source: int, pitch: int, row_bytes: int, rows: int, kind: int, stream: int
) -> None:
    assert (kind, stream) == (1, Stream.ptds.ptr)
    assert min(target_pitch, pitch) >= row_bytes
    for row in range(rows):
        ctypes.memmove(target + row * target_pitch, source + row * pitch, row_bytes)
