"""Reads published media of other processes into leases of its own."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from gpuflow.device import choose
from gpuflow.errors import Closed, InvalidDescriptor, PeerUnavailable, StaleDescriptor, TransferTimeout
from gpuflow.media import MEDIA_KINDS, Media, Stage
from gpuflow.memory import Lease, Slab
from gpuflow.memory.backing import HostMemory
from gpuflow.transfer.descriptor import Descriptor, read_metadata
from gpuflow.transfer.nixl import Agent, Region, Unfinished
from gpuflow.workers import result_of

RECONNECT_SECONDS = 0.05
WIRE_UP_SECONDS = 1.5  # a first read takes 20 ms on an idle machine, 700 on a busy one
_WORDS = 512


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """Counts since the reader was made; ``quarantined`` destinations wait for timed-out reads to end."""

    reads: int
    read_bytes: int
    stale: int
    timeouts: int
    reconnects: int
    unacknowledged: int
    quarantined: int


class Reader:
    """One NIXL agent and one slab to read into; connections are kept. Thread-safe.

    Args:
        slab: where reads go; its own ``slab_bytes`` on ``device`` if not given.

    Raises:
        BackendUnavailable: NIXL is not installed or does not start.
    """

    def __init__(self, *, slab: Slab | None = None, device: str = "auto", slab_bytes: int | str = "1GiB") -> None:
        self._owns_slab = slab is None
        self.slab = slab if slab is not None else Slab(slab_bytes, device=choose(device))
        self.slab.hold()
        try:
            self._agent = Agent("reader")
        except BaseException:
            self.slab.unhold()
            raise
        self._device_id = 0 if self.slab.device == "cpu" else int(self.slab.device.partition(":")[2])
        self._agent.register(Region(self.slab.backing.mem_type, self.slab.address, self.slab.nbytes, self._device_id))
        self._words = HostMemory(8 * _WORDS, name="gpuflow-words")  # where generation words are read to
        self._agent.register(Region("DRAM", self._words.address, self._words.nbytes))
        self._free_words = list(range(_WORDS))
        self._quarantine: list[tuple[Any, Lease | None, int]] = []
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="gpuflow-reader")
        self._closed = False

    def read(self, descriptor: Descriptor, *, timeout_seconds: float = 5.0) -> Media:
        """Read a published medium, check that it was not recycled meanwhile, and tell the publisher that it is free.

        Returns:
            The same kind of medium as was published, in this reader's slab: release it.

        Raises:
            StaleDescriptor: the block was recycled; nothing of it is kept.
            TransferTimeout: not done in time.
            PeerUnavailable: the publisher is gone.
            InvalidDescriptor: the descriptor makes no sense.
            SlabExhausted: no room in this reader's slab.
            Closed: the reader was closed.
        """
        if not isinstance(descriptor, Descriptor):
            raise InvalidDescriptor(
                f"a Descriptor is needed: Descriptor.from_bytes(raw); got {type(descriptor).__name__}"
            )
        descriptor.check()
        if not 0 < timeout_seconds < math.inf:
            raise ValueError(f"timeout_seconds is above 0 and finite; got {timeout_seconds}")
        if self._closed:
            raise Closed("the reader is closed")
        deadline = time.monotonic() + timeout_seconds
        self._sweep()
        started = time.perf_counter()
        lease = self.slab.allocate(descriptor.nbytes, timeout_seconds=timeout_seconds)
        word = self._take_word()
        try:
            self._read_once_more(descriptor, lease, word, deadline)
            lease.seal()
        except Unfinished as error:
            self._set_aside(error.handle, lease, word)
            raise TransferTimeout(
                f"the read of {descriptor.nbytes} bytes did not end in {timeout_seconds:g} s"
            ) from error
        except BaseException:
            self._give_back(lease, word)
            raise
        self._return_word(word)
        self._count(reads=1, read_bytes=descriptor.nbytes)
        return self._media(descriptor, lease, Stage("read", started, time.perf_counter() - started))

    async def aread(self, descriptor: Descriptor, *, timeout_seconds: float = 5.0) -> Media:
        """``read`` off the event loop. When it is cancelled, what is read meanwhile is released by the thread."""
        if self._closed:
            raise Closed("the reader is closed")
        future = self._pool.submit(self.read, descriptor, timeout_seconds=timeout_seconds)
        try:
            return await result_of(future)
        except asyncio.CancelledError:
            future.add_done_callback(_release_result)
            raise

    def statistics(self) -> ReaderStatistics:
        """A snapshot."""
        self._sweep()
        with self._lock:
            counts = self._counts
            return ReaderStatistics(
                counts["reads"], counts["read_bytes"], counts["stale"], counts["timeouts"], counts["reconnects"],
                counts["unacknowledged"],
                len(self._quarantine),
            )  # fmt: skip

    def close(self) -> None:
        """Stop; harmless when repeated. Media that were read stay valid until they are released."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._pool.shutdown()
        self._sweep()
        self._agent.close()
        self.slab.unhold()
        if not self._quarantine:
            self._words.close()
            if self._owns_slab:
                self.slab.close(force=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read_once_more(self, descriptor: Descriptor, lease: Lease, word: int, deadline: float) -> None:
        """Read; when the connection turns out dead, drop it, wait a little and try once again."""
        try:
            self._read_verified(descriptor, lease, word, deadline)
        except PeerUnavailable:
            if time.monotonic() + RECONNECT_SECONDS >= deadline:
                raise
            self._count(reconnects=1)
            self._agent.forget(descriptor.agent)
            time.sleep(RECONNECT_SECONDS)  # NIXL closes connections in the background
            self._read_verified(descriptor, lease, word, deadline)

    def _read_verified(self, descriptor: Descriptor, lease: Lease, word: int, deadline: float) -> None:
        self._connect(descriptor, deadline)
        local = Region(self.slab.backing.mem_type, lease.address, descriptor.nbytes, self._device_id)
        remote = Region(descriptor.mem_type, descriptor.address, descriptor.nbytes, descriptor.device_id)
        self._agent.read(descriptor.agent, [(local, remote)], deadline=deadline)
        mine = Region("DRAM", self._words.address + 8 * word, 8)
        theirs = Region("DRAM", descriptor.table_address, 8)
        self._agent.read(descriptor.agent, [(mine, theirs)], deadline=deadline)
        found = int.from_bytes(self._words.buffer(8 * word, 8), "little")
        if found != descriptor.generation:
            self._count(stale=1)
            raise StaleDescriptor("the block was recycled before it was read")
        try:
            self._agent.notify(descriptor.agent, descriptor.token)
        except PeerUnavailable:  # the bytes are here and whole; only their owner will never know
            self._count(unacknowledged=1)

    def _connect(self, descriptor: Descriptor, deadline: float) -> None:
        """Connect; on first contact read one word, with which the lanes come up. Where that hangs, connect anew: one
        first contact of several hundred did not end in 5 s, for a reason that was not found."""
        theirs = Region("DRAM", descriptor.table_address, 8)
        while True:
            with self._lock:
                self._agent.connect(descriptor.agent, descriptor.agent_metadata)
            if self._agent.answered(descriptor.agent):
                return
            word = self._take_word()
            mine = Region("DRAM", self._words.address + 8 * word, 8)
            try:
                self._agent.read(
                    descriptor.agent, [(mine, theirs)], deadline=min(deadline, time.monotonic() + WIRE_UP_SECONDS)
                )
            except Unfinished as error:
                self._set_aside(error.handle, None, word)
                if time.monotonic() >= deadline:
                    raise TransferTimeout("the publishing process did not answer in time") from error
                self._count(reconnects=1)
                self._agent.forget(descriptor.agent)
            except BaseException:
                self._return_word(word)
                raise
            else:
                self._return_word(word)

    def _media(self, descriptor: Descriptor, lease: Lease, stage: Stage) -> Media:
        return MEDIA_KINDS[descriptor.kind](
            lease,
            descriptor.specs,
            read_metadata(descriptor.metadata),
            backend=descriptor.backend,
            fallback=descriptor.fallback,
            stages=(stage,),
            content_hash=descriptor.content_hash,
        )

    def _set_aside(self, handle: Any, lease: Lease | None, word: int) -> None:
        """A timed-out read still writes: its destination is not reused before it ended."""
        with self._lock:
            self._counts["timeouts"] += 1
            self._quarantine.append((handle, lease, word))

    def _sweep(self) -> None:
        with self._lock:
            waiting, self._quarantine = self._quarantine, []
        for handle, lease, word in waiting:
            if self._agent.finished(handle):
                self._give_back(lease, word)
            else:
                with self._lock:
                    self._quarantine.append((handle, lease, word))

    def _take_word(self) -> int:
        with self._lock:
            if not self._free_words:
                raise TransferTimeout(f"{_WORDS} reads are under way or timed out: none can be added")
            return self._free_words.pop()

    def _return_word(self, word: int) -> None:
        with self._lock:
            self._free_words.append(word)

    def _give_back(self, lease: Lease | None, word: int) -> None:
        if lease is not None:
            lease.release()
        self._return_word(word)

    def _count(self, **values: int) -> None:
        with self._lock:
            self._counts.update(values)


def _release_result(future: Any) -> None:
    if future.exception() is None:
        future.result().release()
