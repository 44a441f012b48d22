"""Where the checklist's decoders write: a GPU's memory by CuPy. Tests put the host's in its place, to run the steps here."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Protocol

LATE = r"""
__device__ unsigned long long now() {
    unsigned long long nanoseconds;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(nanoseconds));
    return nanoseconds;
}

extern "C" __global__ void late(unsigned char* bytes, long long count, unsigned long long nanoseconds, unsigned char level) {
    const unsigned long long begin = now();
    while (now() - begin < nanoseconds) {}
    for (long long place = threadIdx.x; place < count; place += blockDim.x) bytes[place] = level;
}
"""
_THREADS = 256
UNTOUCHED = 0xAA


class Place(Protocol):
    """Memory, streams and the kinds of nvImageCodec's decoders that write there, by their names here."""

    device: str
    kinds: Mapping[str, str | None]

    def empty(self, shape: tuple[int, ...]) -> Any:
        """uint8, every byte ``UNTOUCHED``, and nothing under way."""
        ...

    def host(self, array: Any) -> Any:
        """As numpy, once all work is done."""
        ...

    def stream(self) -> Any:
        """A stream that waits for no other: ``ptr``, ``synchronize()``."""
        ...

    def overwrite_late(self, array: Any, stream: Any, *, level: int, milliseconds: float) -> None:
        """Queue what writes ``level`` to every byte of a contiguous array after that time."""
        ...

    def settle(self) -> None:
        """Wait for all work."""
        ...

    def used_bytes(self) -> int:
        """Memory that is taken where the decoders write."""
        ...


class Cuda:
    """``Place`` on the current GPU."""

    device = "cuda"
    kinds: Mapping[str, str | None] = {
        "default": None, "hardware": "HW_GPU_ONLY", "CUDA": "GPU_ONLY", "hybrid": "HYBRID_CPU_GPU",
    }  # fmt: skip

    def empty(self, shape: tuple[int, ...]) -> Any:
        """See ``Place``."""
        import cupy

        made = cupy.full(shape, UNTOUCHED, cupy.uint8)
        self.settle()
        return made

    def host(self, array: Any) -> Any:
        """See ``Place``."""
        self.settle()
        return array.get()

    def stream(self) -> Any:
        """See ``Place``."""
        import cupy

        return cupy.cuda.Stream(non_blocking=True)

    def overwrite_late(self, array: Any, stream: Any, *, level: int, milliseconds: float) -> None:
        """See ``Place``; one block of threads, which spins first."""
        import cupy

        given = (array, cupy.int64(array.size), cupy.uint64(1e6 * milliseconds), cupy.uint8(level))
        with stream:
            late_kernel()((1,), (_THREADS,), given)

    def settle(self) -> None:
        """See ``Place``."""
        import cupy

        cupy.cuda.Device().synchronize()

    def used_bytes(self) -> int:
        """See ``Place``."""
        import cupy

        free, total = cupy.cuda.runtime.memGetInfo()
        return int(total - free)


@functools.cache
def late_kernel() -> Any:
    """Waits for so long, then writes."""
    import cupy

    return cupy.RawKernel(LATE, "late")


PLACE: Place = Cuda()
