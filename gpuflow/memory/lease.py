"""A reference-counted block of a slab."""

from __future__ import annotations

import math
import threading
import warnings
from typing import TYPE_CHECKING, Any, Self

from gpuflow.errors import LeaseExpired
from gpuflow.media import TensorSpec

if TYPE_CHECKING:
    from gpuflow.memory.slab import Slab


class Lease:
    """``nbytes`` bytes at ``offset`` of a slab, in use until ``release()`` was called as often as it was retained.

    It begins ``writing``; ``seal()`` says that the bytes are final, and only then can it be published. Arrays made by
    ``array`` and ``tensor`` keep an unreleased lease alive; after the last release its memory belongs to the next
    tenant. Thread-safe. On a GPU, ``record_stream`` every stream that used the block.
    """

    __slots__ = (
        "__weakref__",
        "_events",
        "_lock",
        "_references",
        "generation",
        "nbytes",
        "offset",
        "sealed",
        "slab",
        "slot",
    )

    def __init__(self, slab: Slab, slot: int, offset: int, nbytes: int, generation: int) -> None:
        self.slab = slab
        self.slot = slot
        self.offset = offset
        self.nbytes = nbytes
        self.generation = generation
        self.sealed = False
        self._events: list[Any] = []
        self._references = 1
        self._lock = threading.Lock()

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:N"``."""
        return self.slab.device

    @property
    def address(self) -> int:
        """Address of the first byte."""
        return self.slab.address + self.offset

    @property
    def released(self) -> bool:
        """True once the last reference is gone."""
        return self._references == 0

    def array(self, spec: TensorSpec) -> Any:
        """A view of one tensor: ``numpy.ndarray`` on the host, ``cupy.ndarray`` on a GPU; bfloat16 as uint16.

        Raises:
            LeaseExpired: the block was released.
            ValueError: the tensor does not lie in the block.
        """
        self._check(spec)
        dtype = "uint16" if spec.dtype == "bfloat16" else spec.dtype
        block = self._bytes()
        return block[spec.offset : spec.offset + spec.nbytes].view(dtype).reshape(spec.shape)

    def tensor(self, spec: TensorSpec) -> Any:
        """A view of one tensor as ``torch.Tensor``, on the lease's device.

        Raises:
            LeaseExpired: the block was released.
            ValueError: the tensor does not lie in the block.
        """
        import torch

        if self.device == "cpu":
            self._check(spec)
            flat = torch.from_numpy(self._bytes())[spec.offset : spec.offset + spec.nbytes]
        else:
            flat = torch.utils.dlpack.from_dlpack(
                self.array(TensorSpec(spec.name, "uint8", (spec.nbytes,), spec.offset))
            )
        return flat.view(getattr(torch, spec.dtype)).reshape(spec.shape)

    def seal(self) -> None:
        """Declare the bytes final: the block may be published from now on."""
        with self._lock:
            self._require_live()
            if not self.sealed:
                self.sealed = True
                self.generation = self.slab.seal_slot(self.slot)

    def retain(self) -> Self:
        """One more reference; ``release`` it too.

        Raises:
            LeaseExpired: the block was released.
        """
        with self._lock:
            self._require_live()
            self._references += 1
        return self

    def release(self) -> None:
        """Drop one reference; with the last one the block is recycled. Harmless once it is."""
        with self._lock:
            if self._references == 0:
                return
            self._references -= 1
            last = self._references == 0
        if last:
            self.slab.recycle(self.slot, self.offset, self.nbytes, self._events)

    def record_stream(self, stream: Any) -> None:
        """Note work queued on a CuPy ``stream`` that uses the block: it is not recycled before that work is done."""
        event = stream.record()
        with self._lock:
            self._events.append(event)

    def synchronize(self) -> None:
        """Wait on the host until all recorded work on the block is done."""
        with self._lock:
            events, self._events = self._events, []
        for event in events:
            event.synchronize()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Lease is memory of this process and cannot be pickled: publish it and send descriptor.to_bytes()"
        )

    def __repr__(self) -> str:
        state = "released" if self.released else "sealed" if self.sealed else "writing"
        return f"<Lease slot {self.slot} generation {self.generation}: {self.nbytes} bytes at {self.offset} on {self.device}, {state}>"

    def __del__(self) -> None:
        if getattr(self, "_references", 0) > 0 and not self.slab.closed:
            self._references = 0
            self.slab.reclaim(self.slot, self.offset, self.nbytes, self._events)
            warnings.warn(
                f"a lease of {self.nbytes} bytes was never released: use 'with', or call release()",
                ResourceWarning,
                stacklevel=2,
            )

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if self.device != "cpu":
            raise AttributeError("this block lies in GPU memory")
        return self.slab.backing.array_interface(self.offset, self.nbytes)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.device == "cpu":
            raise AttributeError("this block lies in host memory")
        return self.slab.backing.array_interface(self.offset, self.nbytes)

    def _bytes(self) -> Any:
        if self.device == "cpu":
            import numpy as np

            return np.asarray(self)  # its base is this lease: the view keeps the block
        import cupy

        return cupy.asarray(self)

    def _check(self, spec: TensorSpec) -> None:
        self._require_live()
        if spec.offset < 0 or math.prod(spec.shape) < 0 or spec.offset + spec.nbytes > self.nbytes:
            raise ValueError(
                f"tensor {spec.name!r} of {spec.nbytes} bytes at {spec.offset} does not lie in a block of {self.nbytes} bytes"
            )

    def _require_live(self) -> None:
        if self._references == 0:
            raise LeaseExpired("this block was released; its memory belongs to another medium")
