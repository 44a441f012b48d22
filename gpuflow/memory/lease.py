"""A reference-counted block of a slab."""

from __future__ import annotations

import math
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, Self

from gpuflow.errors import LeaseExpired
from gpuflow.media import TensorSpec
from gpuflow.memory.generations import PUBLISHED, QUARANTINED, SEALED, STATES, WRITING
from gpuflow.observe import log

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from gpuflow.memory.slab import Slab

_TRACE_FRAMES = 4
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Lease:
    """``nbytes`` bytes at ``offset`` of a slab, in use until ``release()`` was called as often as it was retained.

    It begins ``writing``; ``seal()`` says that the bytes are final, and only then can it be published. Arrays made by
    ``array`` and ``tensor`` keep an unreleased lease alive; after the last release its memory belongs to the next
    tenant. As a whole it is a vector of uint8, by DLPack, ``memoryview`` (``memory()``) and the array interfaces.
    Thread-safe. On a GPU, ``record_stream`` every stream that used the block.
    """

    __slots__ = (
        "__weakref__",
        "_events",
        "_lock",
        "_publications",
        "_quarantines",
        "_references",
        "_taken_at",
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
        self._publications = 0
        self._quarantines = 0
        self._references = 1
        self._lock = threading.Lock()
        self._taken_at = _callers()

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

    @property
    def references(self) -> int:
        """How often it must be released until the block is free."""
        return self._references

    @property
    def state(self) -> str:
        """``"writing"``, ``"sealed"``, ``"published"``, ``"quarantined"`` (a timed-out read may still write to it) or
        ``"free"``."""
        return "free" if self.released else STATES[self._state()]

    def array(self, spec: TensorSpec) -> Any:
        """A view of one tensor: ``numpy.ndarray`` on the host, ``cupy.ndarray`` on a GPU; bfloat16 as uint16.

        Raises:
            LeaseExpired: the block was released, or a timed-out read may still write to it.
            ValueError: the tensor does not lie in the block.
        """
        self._check(spec)
        dtype = "uint16" if spec.dtype == "bfloat16" else spec.dtype
        block = self._bytes()
        return block[spec.offset : spec.offset + spec.nbytes].view(dtype).reshape(spec.shape)

    def tensor(self, spec: TensorSpec) -> Any:
        """A view of one tensor as ``torch.Tensor``, on the lease's device.

        Raises:
            LeaseExpired: the block was released, or a timed-out read may still write to it.
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

    def memory(self) -> memoryview:
        """All bytes of a block on the host; the view keeps an unreleased block alive.

        Raises:
            LeaseExpired: as for ``array``.
            BufferError: the block lies in GPU memory.
        """
        self._require_usable()
        if self.device != "cpu":
            raise BufferError(f"the block lies on {self.device}: use array(), tensor() or DLPack")
        return memoryview(self._bytes())

    def require(self, nbytes: int) -> None:
        """Raise ``LeaseExpired`` or ``ValueError`` unless ``nbytes`` at the block's start can be read and written."""
        self._require_usable()
        if nbytes > self.nbytes:
            raise ValueError(f"{nbytes} bytes do not lie in a block of {self.nbytes} bytes")

    def seal(self) -> None:
        """Declare the bytes final: the block may be published from now on."""
        with self._lock:
            self._require_usable()
            if not self.sealed:
                self.sealed = True
                self.generation = self.slab.advance(self, odd=False)
                self._note_state()

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
        """Drop one reference; with the last one the block is recycled. Harmless once it is, and never waits: a block
        that a GPU still works on is recycled when that work is done."""
        with self._lock:
            if self._references == 0:
                return
            self._references -= 1
            last = self._references == 0
        if last:
            self.slab.recycle(self.slot, self.offset, self.nbytes, self._events)

    def publish(self) -> int:
        """Retain the block for a publication, which ``unpublish`` ends; returns the generation that readers compare.

        Raises:
            LeaseExpired: the block was released.
            ValueError: it is not sealed.
        """
        with self._lock:
            self._require_usable()
            if not self.sealed:
                raise ValueError("the block is still being written: only a sealed one can be published")
            self._references += 1
            self._publications += 1
            if self._publications == 1:
                self._note_state()
            return self.generation

    def unpublish(self, *, revoke: bool) -> None:
        """End a publication. ``revoke``: readers that come later find it stale even while others hold the block."""
        with self._lock:
            self._publications -= 1
            if self._publications == 0 and self._references > 1:
                if revoke:
                    self.generation = self.slab.advance(self, odd=False)
                self._note_state()
        self.release()

    def quarantine(self) -> None:
        """A read that nobody waits for may still write to the block: it cannot be viewed or sealed until ``readmit``,
        once for each ``quarantine``."""
        with self._lock:
            self._quarantines += 1
            self._note_state()

    def readmit(self) -> None:
        """That read has ended."""
        with self._lock:
            self._quarantines -= 1
            self._note_state()

    def record_stream(self, stream: Any) -> None:
        """Note work queued on a CuPy ``stream`` that uses the block: it is not recycled before that work is done."""
        event = stream.record()
        with self._lock:
            self._events.append(event)

    @property
    def busy(self) -> bool:
        """Whether recorded work on the block is not done."""
        with self._lock:
            self._events = [event for event in self._events if not event.done]
            return bool(self._events)

    def synchronize(self) -> None:
        """Wait on the host until the work on the block that was recorded so far is done."""
        with self._lock:
            events = list(self._events)
        for event in events:
            event.synchronize()
        with self._lock:
            self._events = [event for event in self._events if event not in events]

    def taken_at(self) -> str:
        """Where it was allocated, innermost call first: ``"server.py:10 in load < server.py:40 in main"``."""
        return " < ".join(f"{code.co_filename}:{_line(code, at)} in {code.co_name}" for code, at in self._taken_at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Lease is memory of this process and cannot be pickled: publish it and send descriptor.to_bytes()"
        )

    def __repr__(self) -> str:
        return f"<Lease slot {self.slot} generation {self.generation}: {self.nbytes} bytes at {self.offset} on {self.device}, {self.state}>"

    def __del__(self) -> None:
        if getattr(self, "_references", 0) > 0 and not self.slab.closed:
            self._references = 0
            self.slab.reclaim(self.slot, self.offset, self.nbytes, self._events)
            text = f"a lease of {self.nbytes} bytes was never released (use 'with', or call release()): taken at {self.taken_at()}"
            log.warning(text)
            warnings.warn(text, ResourceWarning, stacklevel=2)

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

    def __dlpack__(self, **kwargs: Any) -> Any:
        self._require_usable()
        return self._bytes().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._bytes().__dlpack_device__()

    def _bytes(self) -> Any:
        if self.device == "cpu":
            import numpy as np

            return np.asarray(_View(self))
        import cupy

        return cupy.asarray(_View(self))

    def _check(self, spec: TensorSpec) -> None:
        self._require_usable()
        if spec.offset < 0 or math.prod(spec.shape) < 0 or spec.offset + spec.nbytes > self.nbytes:
            raise ValueError(
                f"tensor {spec.name!r} of {spec.nbytes} bytes at {spec.offset} does not lie in a block of {self.nbytes} bytes"
            )

    def _state(self) -> int:
        if self._quarantines:
            return QUARANTINED
        if self._publications:
            return PUBLISHED
        return SEALED if self.sealed else WRITING

    def _note_state(self) -> None:
        self.slab.note_state(self, self._state())

    def _require_usable(self) -> None:
        self._require_live()
        if self._quarantines:
            raise LeaseExpired("a read that timed out or was cancelled may still write to this block")

    def _require_live(self) -> None:
        if self._references == 0:
            raise LeaseExpired("this block was released; its memory belongs to another medium")


class _View:
    """What arrays are based on: it keeps the lease alive, and also under a stale view the memory of a closed slab."""

    __slots__ = ("_held", "_lease")

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._held = lease.slab.backing.hold()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._lease.__array_interface__

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._lease.__cuda_array_interface__


def _callers() -> tuple[tuple[CodeType, int], ...]:
    """The frames outside this package that lead here, as code and instruction: cheap to take, resolved when printed."""
    frame: FrameType | None = sys._getframe(2)
    callers: list[tuple[CodeType, int]] = []
    while frame is not None and len(callers) < _TRACE_FRAMES:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            callers.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(callers)


def _line(code: CodeType, at: int) -> int | None:
    return next((line for start, end, line in code.co_lines() if start <= at < end), None)
