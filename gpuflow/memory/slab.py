"""One piece of memory a device and process, allocated and registered once; leases are its blocks."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Self

from gpuflow.config import parse_bytes
from gpuflow.device import Device, choose
from gpuflow.errors import SlabClosed, SlabExhausted
from gpuflow.memory.backing import Backing, DeviceMemory, HostMemory
from gpuflow.memory.extents import GRANULE_BYTES, Extents
from gpuflow.memory.lease import Lease

SLOT_BYTES = 16  # u64 generation, u64 reserved
MAX_SLOTS = 65_536
LOST_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class SlabStatistics:
    """Bytes by state and counts since the slab was made."""

    device: str
    capacity_bytes: int
    leased_bytes: int
    free_bytes: int
    largest_free_bytes: int
    live_leases: int
    allocations: int
    failed_allocations: int
    reclaimed_leases: int
    peak_leased_bytes: int


class Slab:
    """``nbytes`` of host memory (memfd) or GPU memory (one ``cudaMalloc``), handed out as leases. Thread-safe.

    Beside it lies a table of generations, one word a slot: odd while a block is free or being written, even while it
    is sealed, and never the same again. A reader compares the word after its read, because NIXL reports a read of a
    recycled block as a success.
    """

    def __init__(self, nbytes: int | str = "1GiB", *, device: str | Device = "cpu") -> None:
        chosen = device if isinstance(device, Device) else choose(device)
        size = max(GRANULE_BYTES, parse_bytes(nbytes)) // GRANULE_BYTES * GRANULE_BYTES
        self.backing: Backing = DeviceMemory(size, chosen) if chosen.is_cuda else HostMemory(size)
        self.table = HostMemory(MAX_SLOTS * SLOT_BYTES, name="gpuflow-generations")
        self.nbytes = size
        self.closed = False
        self._words = self.table.buffer(0, self.table.nbytes).cast("Q")
        self._extents = Extents(size)
        self._slots: list[int] = []
        self._next_slot = 0
        self._lost: deque[tuple[int, int, int, list[Any]]] = deque()
        self._freed = threading.Condition(threading.RLock())
        self._holds = 0
        self._live = self._allocations = self._failed = self._reclaimed = self._peak = 0

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:N"``."""
        return self.backing.device

    @property
    def address(self) -> int:
        """Address of the first byte."""
        return self.backing.address

    def allocate(self, nbytes: int, *, timeout_seconds: float = 0.0) -> Lease:
        """Lease a block of ``nbytes``, waiting at most ``timeout_seconds`` for one to become free.

        Raises:
            SlabExhausted: no such block became free; says how much is.
            SlabClosed: the slab was closed.
            ValueError: ``nbytes`` is below 1.
        """
        if nbytes < 1:
            raise ValueError(f"a block has at least 1 byte; got {nbytes}")
        deadline = time.monotonic() + timeout_seconds
        with self._freed:
            while (lease := self._try_allocate(nbytes)) is None:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or nbytes > self.nbytes:
                    self._failed += 1
                    raise self._exhausted(nbytes)
                self._freed.wait(min(remaining, LOST_POLL_SECONDS))
            return lease

    def statistics(self) -> SlabStatistics:
        """A consistent snapshot."""
        with self._freed:
            self._recycle_lost()
            free = self._extents.free_bytes
            return SlabStatistics(
                self.device, self.nbytes, self.nbytes - free, free, self._extents.largest_free_bytes, self._live,
                self._allocations, self._failed, self._reclaimed, self._peak,
            )  # fmt: skip

    def close(self, *, force: bool = False) -> None:
        """Free the memory; harmless when repeated.

        Raises:
            RuntimeError: leases are live, and not ``force``.
        """
        with self._freed:
            if self.closed:
                return
            self._recycle_lost()
            if self._live and not force:
                raise RuntimeError(f"{self._live} leases of this slab are live: release them first")
            self.closed = True
            self._freed.notify_all()
            if self._live or self._holds:  # NIXL, or views of leases: the mapping goes when the last of them dies
                return
            self._words.release()
            self.table.close()
            self.backing.close()

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
        with self._freed:
            self._require_open()
            self._holds += 1

    def unhold(self) -> None:
        """Give a hold back."""
        with self._freed:
            self._holds -= 1

    def generation(self, slot: int) -> int:
        """The generation word of a slot."""
        return self._words[slot * SLOT_BYTES // 8]

    def seal_slot(self, slot: int) -> int:
        """Make a slot's generation even; called by its lease."""
        with self._freed:
            self._require_open()
            return self._bump(slot, odd=False)

    def recycle(self, slot: int, offset: int, nbytes: int, events: list[Any]) -> None:
        """Take a block back: its generation changes first, then its memory becomes free. Called by its lease."""
        for event in events:
            event.synchronize()
        with self._freed:
            self._bump(slot, odd=True)
            self._extents.free(offset, nbytes)
            self._slots.append(slot)
            self._live -= 1
            self._freed.notify_all()

    def reclaim(self, slot: int, offset: int, nbytes: int, events: list[Any]) -> None:
        """``recycle`` for a lease that nobody released; counted. Called by the garbage collector at any point of any
        thread, even inside this slab's own bookkeeping, so the block only joins a queue that the next call empties."""
        self._lost.append((slot, offset, nbytes, events))

    def _recycle_lost(self) -> None:
        while self._lost:
            self._reclaimed += 1
            self.recycle(*self._lost.popleft())

    def _try_allocate(self, nbytes: int) -> Lease | None:
        self._require_open()
        self._recycle_lost()
        slot = self._take_slot()
        offset = None if slot is None else self._extents.allocate(nbytes)
        if slot is None or offset is None:
            if slot is not None:
                self._slots.append(slot)
            return None
        self._live += 1
        self._allocations += 1
        self._peak = max(self._peak, self.nbytes - self._extents.free_bytes)
        return Lease(self, slot, offset, nbytes, self._bump(slot, odd=True))

    def _take_slot(self) -> int | None:
        if self._slots:
            return self._slots.pop()
        if self._next_slot == MAX_SLOTS:
            return None
        self._next_slot += 1
        return self._next_slot - 1

    def _bump(self, slot: int, *, odd: bool) -> int:
        index = slot * SLOT_BYTES // 8
        word = self._words[index] + 1
        word += (word % 2 == 1) != odd
        self._words[index] = word
        return word

    def _exhausted(self, nbytes: int) -> SlabExhausted:
        free, largest = self._extents.free_bytes, self._extents.largest_free_bytes
        return SlabExhausted(
            f"no block of {nbytes} bytes in a slab of {self.nbytes} on {self.device}: {free} bytes free, largest block {largest}. "
            "Release media, make the slab larger, or ask for less."
        )

    def _require_open(self) -> None:
        if self.closed:
            raise SlabClosed("the slab is closed")
