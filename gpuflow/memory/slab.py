"""One piece of memory a device and process, allocated and registered once; leases are its blocks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Self

from gpuflow.device import Device, choose, driver
from gpuflow.errors import BackendUnavailable, SlabClosed, SlabExhausted
from gpuflow.forks import disown_in_children
from gpuflow.memory.arbiter import Arbiter, Request
from gpuflow.memory.backing import Backing, DeviceMemory, HostMemory
from gpuflow.memory.extents import GRANULE_BYTES, Extents
from gpuflow.memory.generations import DRAINING, WRITING, Generations
from gpuflow.memory.lease import Lease
from gpuflow.memory.statistics import SlabStatistics
from gpuflow.observe import log
from gpuflow.values import parse_bytes
from gpuflow.workers import call_soon

RELIEF_SECONDS = 0.25  # what pressure callbacks may take even of an allocation that does not wait
POLL_SECONDS = 0.1  # how often a waiter looks for leases that were garbage collected, and asks for pressure relief
_DRAIN_POLL_SECONDS = 0.001
Relief = Callable[[int, float], object]
_Block = tuple[int, int, int, list[Any]]  # slot, offset, bytes, events


class Slab:
    """``nbytes`` of host memory (memfd) or GPU memory (one ``cudaMalloc``), handed out as leases. Thread-safe.

    Args:
        pin: page-lock host memory for a GPU. ``None``: where there is a GPU; then a failure is noted in
            ``pin_failure``, while with ``True`` it raises.
        shared: decode workers may write to host memory (``gpuflow.isolation``).

    Raises:
        BackendUnavailable: the device, or pinning that was asked for, is not to be had.
        InvalidOptions: this machine does not give so many bytes.

    A slab belongs to the process that made it. In a forked child it is closed: views of its leases can be read there,
    and nothing else.
    """

    def __init__(
        self,
        nbytes: int | str = "1GiB",
        *,
        device: str | Device = "cpu",
        pin: bool | None = None,
        shared: bool = False,
    ) -> None:
        chosen = device if isinstance(device, Device) else choose(device)
        size = max(GRANULE_BYTES, parse_bytes(nbytes)) // GRANULE_BYTES * GRANULE_BYTES
        self.backing: Backing = DeviceMemory(size, chosen) if chosen.is_cuda else HostMemory(size, shared=shared)
        self.pin_failure = _pin(self.backing, wanted=pin)
        self.generations = Generations()
        self.nbytes = size
        self.closed = False
        self.foreign = False  # true in a forked child
        self._arbiter = Arbiter(Extents(size))
        self._wake: dict[Request, Callable[[], object]] = {}
        self._relief: list[Relief] = []
        self._lost: deque[_Block] = deque()  # leases that the garbage collector found
        self._draining: list[_Block] = []  # released, and a GPU still works on them
        self._lock = threading.RLock()
        self._holds = self._live = self._peak = 0
        self._allocations = self._failed = self._leaked = self._waits = 0
        self._waited_seconds = 0.0
        disown_in_children(self)

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:N"``."""
        return self.backing.device

    @property
    def address(self) -> int:
        """Address of the first byte."""
        return self.backing.address

    @property
    def free_bytes(self) -> int:
        """Bytes that no block takes."""
        return self._arbiter.extents.free_bytes

    @property
    def largest_free_bytes(self) -> int:
        """The largest block that could be leased at once."""
        return self._arbiter.extents.largest_free_bytes

    @property
    def pinned(self) -> bool:
        """Whether it is host memory that was page-locked for a GPU."""
        return isinstance(self.backing, HostMemory) and self.backing.pinned

    def allocate(self, nbytes: int, *, timeout_seconds: float = 0.0) -> Lease:
        """Lease a block of ``nbytes``, waiting at most ``timeout_seconds`` for one to become free; where there are
        pressure callbacks, they are asked to free one for 0.25 s at least.

        Raises:
            SlabExhausted: no such block became free; says how much is.
            SlabClosed: the slab was closed.
            ValueError: ``nbytes`` is below 1.
            TypeError: it is no whole number.
        """
        lease = self._allocate_now(nbytes)
        if lease is not None:
            return lease
        deadline = time.monotonic() + timeout_seconds
        self._relieve(nbytes, deadline)
        woken = threading.Event()
        with self._queued(nbytes, woken.set) as request:
            while request.start is None and (seconds := self._pause(deadline)) > 0:
                woken.wait(seconds)
                if request.start is None:
                    self._relieve(nbytes, deadline)
            return self._dequeue(request)

    async def aallocate(self, nbytes: int, *, timeout_seconds: float = 1.0) -> Lease:
        """``allocate`` that waits without a thread; what callbacks free under pressure, they free in a thread.

        Raises:
            SlabExhausted, SlabClosed, ValueError: as ``allocate``.
        """
        lease = self._allocate_now(nbytes)
        if lease is not None:
            return lease
        deadline = time.monotonic() + timeout_seconds
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        with self._queued(nbytes, lambda: call_soon(loop, woken.set)) as request:
            while True:
                if request.start is None and self._relief:
                    await asyncio.to_thread(self._relieve, nbytes, deadline)
                if request.start is not None or (seconds := self._pause(deadline)) <= 0:
                    return self._dequeue(request)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await woken.wait()

    def on_pressure(self, relieve: Relief) -> Callable[[], None]:
        """Have ``relieve(nbytes, deadline)`` called, in a thread and without the slab's lock, when an allocation would
        wait: it frees what it can by the deadline (``time.monotonic``). Returns what takes the callback away again."""
        with self._lock:
            self._relief.append(relieve)

        def stop() -> None:
            with self._lock:
                if relieve in self._relief:
                    self._relief.remove(relieve)

        return stop

    def statistics(self) -> SlabStatistics:
        """A consistent snapshot."""
        with self._lock:
            self._collect()
            extents = self._arbiter.extents
            by_state = self.generations.bytes_by_state() if not self.closed else {}
            return SlabStatistics(
                device=self.device,
                pinned=self.pinned,
                capacity_bytes=self.nbytes,
                leased_bytes=self.nbytes - extents.free_bytes,
                free_bytes=extents.free_bytes,
                largest_free_bytes=extents.largest_free_bytes,
                writing_bytes=by_state.get("writing", 0),
                sealed_bytes=by_state.get("sealed", 0),
                published_bytes=by_state.get("published", 0),
                draining_bytes=by_state.get("draining", 0),
                quarantined_bytes=by_state.get("quarantined", 0),
                live_leases=self._live,
                allocations=self._allocations,
                failed_allocations=self._failed,
                waiting=len(self._arbiter.waiting),
                waits=self._waits,
                waited_seconds=self._waited_seconds,
                leaked_leases=self._leaked,
                peak_leased_bytes=self._peak,
            )

    def close(self, *, force: bool = False) -> None:
        """Free the memory; harmless when repeated. With ``force`` it is freed with the last live lease.

        Raises:
            RuntimeError: leases are live, and not ``force``.
        """
        with self._lock:
            if self.closed:
                return
            for block in self._draining:
                _synchronize(block)
            self._collect()
            if self._live and not force:
                raise RuntimeError(f"{self._live} leases of this slab are live: release them first")
            self.closed = True
            for wake in self._wake.values():
                wake()
            self._give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close(force=True)

    def __repr__(self) -> str:
        return f"<Slab {self.nbytes} bytes on {self.device}, {self._live} leases>"

    def hold(self) -> None:
        """Keep the memory mapped until ``unhold``, although the slab may be closed: a peer that reads unmapped memory
        kills this process. Called by those that register it.

        Raises:
            SlabClosed: it is closed already.
        """
        with self._lock:
            self._require_open()
            self._holds += 1

    def unhold(self) -> None:
        """Give a hold back; a closed slab's memory goes with the last one."""
        with self._lock:
            self._holds -= 1
            self._give_back()

    def taken_bytes(self, nbytes: int) -> int:
        """Bytes of the slab that a block of ``nbytes`` takes: whole granules."""
        return self._arbiter.extents.round_up(nbytes)

    def generation(self, slot: int) -> int:
        """The generation word of a slot."""
        return self.generations[slot]

    def advance(self, lease: Lease, *, odd: bool) -> int:
        """The lease's next generation; called by the lease."""
        with self._lock:
            if self.foreign:
                self._require_open()
            return self.generations.advance(lease.slot, odd=odd)

    def note_state(self, lease: Lease, state: int) -> None:
        """Note the lease's state in the table; called by the lease."""
        with self._lock:
            if not self.foreign and not lease.released:
                self.generations.set_state(lease.slot, state, self._arbiter.extents.round_up(lease.nbytes))

    def recycle(self, slot: int, offset: int, nbytes: int, events: list[Any]) -> None:
        """Take a block back: its generation changes first, then, when its events are done, its memory becomes free.
        Called by its lease."""
        if self.foreign:
            return
        with self._lock:
            self.generations.advance(slot, odd=True)
            if all(event.done for event in events):
                self._free((slot, offset, nbytes, events))
            else:
                self._draining.append((slot, offset, nbytes, events))
                self.generations.set_state(slot, DRAINING, self._arbiter.extents.round_up(nbytes))

    def reclaim(self, slot: int, offset: int, nbytes: int, events: list[Any]) -> None:
        """``recycle`` for a lease that nobody released; counted. Called by the garbage collector at any point of any
        thread, even inside this slab's own bookkeeping, so the block only joins a queue that the next call empties."""
        self._lost.append((slot, offset, nbytes, events))

    def _allocate_now(self, nbytes: int) -> Lease | None:
        """A block, if there is one. ``None``: it is worth waiting for one."""
        if not hasattr(nbytes, "__index__"):
            raise TypeError(f"a block's size is a whole number of bytes; got {nbytes!r}")
        if nbytes < 1:
            raise ValueError(f"a block has at least 1 byte; got {nbytes}")
        with self._lock:
            self._require_open()
            self._collect()
            start = self._arbiter.take(nbytes, time.monotonic())
            if start is not None and (lease := self._lease(start, nbytes)) is not None:
                return lease
            if nbytes > self.nbytes:
                raise self._exhausted(nbytes)
            return None

    def _lease(self, start: int, nbytes: int) -> Lease | None:
        slot = self.generations.take()
        if slot is None:
            self._arbiter.extents.free(start, nbytes)
            return None
        self._live += 1
        self._allocations += 1
        self._peak = max(self._peak, self.nbytes - self._arbiter.extents.free_bytes)
        self.generations.set_state(slot, WRITING, self._arbiter.extents.round_up(nbytes))
        return Lease(self, slot, start, nbytes, self.generations.advance(slot, odd=True))

    @contextlib.contextmanager
    def _queued(self, nbytes: int, wake: Callable[[], object]) -> Iterator[Request]:
        """Stand in the queue; who leaves by an error gives back what it was granted meanwhile."""
        with self._lock:
            request = self._arbiter.wait(nbytes, time.monotonic())
            self._wake[request] = wake
            self._waits += 1
            self._serve()
        try:
            yield request
        finally:
            with self._lock:
                self._waited_seconds += time.monotonic() - request.since
                if self._wake.pop(request, None) is not None:
                    self._arbiter.withdraw(request)
                    if request.start is not None:
                        self._arbiter.extents.free(request.start, nbytes)
                    self._serve()

    def _dequeue(self, request: Request) -> Lease:
        with self._lock:
            if request.start is None:
                raise self._exhausted(request.nbytes)
            self._require_open()
            del self._wake[request]
            lease = self._lease(request.start, request.nbytes)
            if lease is None:
                raise self._exhausted(request.nbytes)
            return lease

    def _pause(self, deadline: float) -> float:
        """How long a waiter may sleep before it looks again; 0 when its time is over."""
        with self._lock:
            self._require_open()
            self._collect()
            longest = _DRAIN_POLL_SECONDS if self._draining else POLL_SECONDS
            return max(0.0, min(deadline - time.monotonic(), longest))

    def _relieve(self, nbytes: int, deadline: float) -> None:
        deadline = max(deadline, time.monotonic() + RELIEF_SECONDS)
        for relieve in list(self._relief):
            if self._arbiter.extents.largest_free_bytes >= nbytes:
                return
            try:
                relieve(nbytes, deadline)
            except Exception:  # noqa: BLE001 - somebody else's callback: this allocation can still wait
                log.exception("a pressure callback failed")

    def _collect(self) -> None:
        """Recycle what the garbage collector found, and what a GPU has finished."""
        if not self._lost and not self._draining:
            return
        while self._lost:
            self._leaked += 1
            self.recycle(*self._lost.popleft())
        draining, self._draining = self._draining, []
        for block in draining:
            if all(event.done for event in block[3]):
                self._free(block)
            else:
                self._draining.append(block)

    def _free(self, block: _Block) -> None:
        slot, offset, nbytes, _ = block
        self.generations.give_back(slot)
        self._arbiter.extents.free(offset, nbytes)
        self._live -= 1
        if self._wake:
            self._serve()
        self._give_back()

    def _give_back(self) -> None:
        """Free the memory of a closed slab once no lease is live and nobody holds it."""
        if self.closed and not (self._live or self._holds or self.foreign):
            self.generations.close()
            self.backing.close()

    def _serve(self) -> None:
        for request in self._arbiter.grant(time.monotonic()):
            self._wake[request]()

    def _exhausted(self, nbytes: int) -> SlabExhausted:
        self._failed += 1
        free, largest = self._arbiter.extents.free_bytes, self._arbiter.extents.largest_free_bytes
        return SlabExhausted(
            f"no block of {nbytes} bytes in a slab of {self.nbytes} on {self.device}: {free} bytes free, largest block {largest}. "
            "Release media, make the slab larger, or ask for less."
        )

    def _require_open(self) -> None:
        if self.foreign:
            raise SlabClosed("this slab was made before a fork and belongs to the parent: make one in this process")
        if self.closed:
            raise SlabClosed("the slab is closed")

    def disown(self) -> None:
        """In a forked child: the table is shared with the parent, whose blocks must not change."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self.closed = self.foreign = True


def _synchronize(block: _Block) -> None:
    for event in block[3]:
        event.synchronize()


def _pin(backing: Backing, *, wanted: bool | None) -> str | None:
    """Page-lock host memory; why it could not be done, or ``None``."""
    if wanted is False or not isinstance(backing, HostMemory):
        return None
    if driver().count == 0:
        reason = driver().reason
        if wanted:
            raise BackendUnavailable(f"host memory cannot be pinned: {reason}")
        return reason
    try:
        backing.pin()
    except (BackendUnavailable, ImportError) as error:
        if wanted:
            raise BackendUnavailable(f"host memory cannot be pinned: {error}") from error
        return str(error)
    return None
