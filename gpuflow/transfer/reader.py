"""Reads published media of other processes into leases of its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from gpuflow.device import choose
from gpuflow.errors import (
    Closed,
    GpuflowError,
    InvalidDescriptor,
    PeerUnavailable,
    StaleDescriptor,
    TransferTimeout,
)
from gpuflow.media import MEDIA_KINDS, Media, Metadata, Stage, Storage, TensorSpec
from gpuflow.memory import Lease, Slab
from gpuflow.observe import log
from gpuflow.transfer.breaker import Breaker
from gpuflow.transfer.descriptor import Descriptor, Peer
from gpuflow.transfer.routes import WAYS, NoWay, Routes
from gpuflow.transfer.statistics import ReaderStatistics
from gpuflow.transfer.transports import Transport, available
from gpuflow.workers import result_of

MAX_PEERS = 256
_Known = tuple[Peer, tuple[TensorSpec, ...], Metadata]  # what a descriptor says, checked
CLOSE_SECONDS = 10.0  # for reads that wait for room in a slab of the caller's


class Reader:
    """One slab to read into, and connections to publishers, which are kept. Thread-safe.

    A publisher in the same process shares its block; one on the same host is read out of its mapped memory; any other
    by NIXL. Each read is checked against the block's generation afterwards, and acknowledged.

    Args:
        slab: where reads go; its own ``slab_bytes`` on ``device`` if not given.
        transports: ways that may be taken; ``None``: all that are to be had here.
        directory: where a ``FilePublisher`` writes, to read its media too; no file elsewhere is ever opened.
        threads: how many ``aread`` at once.

    Raises:
        BackendUnavailable: a transport was asked for that is not installed, or does not start.
        OSError: the directory cannot be used.
    """

    def __init__(
        self,
        *,
        slab: Slab | None = None,
        device: str = "auto",
        slab_bytes: int | str = "1GiB",
        transports: Transport | Iterable[Transport] | None = None,
        directory: str | os.PathLike[str] | None = None,
        threads: int = 4,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads is 1 or more; got {threads}")
        self.transports = available(transports)
        self._owns_slab = slab is None
        self.slab = slab if slab is not None else Slab(slab_bytes, device=choose(device))
        self.slab.hold()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._active = 0  # reads under way
        self._peers: OrderedDict[bytes, Peer] = OrderedDict()  # by reference, the oldest first
        self._peers_by_name: dict[str, Peer] = {}
        self._breakers: OrderedDict[Peer, Breaker] = OrderedDict()
        try:
            self._routes = Routes(self.slab, self.transports, directory, self._counts, self._lock)
        except BaseException:
            self._let_slab_go()
            raise
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gpuflow-reader")
        self._closed = False
        self._process = os.getpid()

    def add_peer(self, peer: Peer | bytes) -> None:
        """Learn of a publisher (``publisher.peer``, or its bytes), so that its compact descriptors can be read.

        Raises:
            InvalidDescriptor: not such a record.
        """
        known = peer if isinstance(peer, Peer) else Peer.from_bytes(peer)
        known.check()
        with self._lock:
            self._remember(known)

    def read(self, descriptor: Descriptor, *, into: Lease | None = None, timeout_seconds: float = 5.0) -> Media:
        """Read a published medium, check that it was not recycled meanwhile, and tell the publisher that it is free.

        Args:
            into: a block of this reader's slab to read into, unsealed and large enough. It is sealed then, and the
                medium takes the caller's reference over; when the read fails the caller keeps it. After
                ``TransferTimeout`` it is quarantined: it can be released, and not used.

        Returns:
            The same kind of medium as was published: release it. It lies in this reader's slab; a publisher of the
            same process and device shares its own block instead, which must not be written to.

        Raises:
            StaleDescriptor: the block was recycled, or the publication has ended; nothing of it is kept.
            TransferTimeout: not done in time.
            PeerUnavailable: the publisher is gone, or cannot be reached by any way that may be taken.
            InvalidDescriptor: the descriptor makes no sense, or is compact and of an unknown publisher.
            SlabExhausted: no room in this reader's slab.
            LeaseExpired: ``into`` was released, or is quarantined.
            Closed: the reader was closed.
        """
        known = self._check(descriptor, timeout_seconds)
        return self._read(descriptor, known, into, time.monotonic() + timeout_seconds)

    def _read(self, descriptor: Descriptor, known: _Known, into: Lease | None, deadline: float) -> Media:
        peer, specs, metadata = known
        started = time.perf_counter()
        with self._reading(peer):
            self._routes.sweep()
            way = self._routes.choose(peer, descriptor, deadline)
            lease = self._routes.share(peer, descriptor) if way == "inproc" and into is None else None
            if lease is None:
                lease = self._target(descriptor, into, deadline)
                try:
                    self._routes.read(way, peer, descriptor, lease, deadline)
                    lease.seal()
                except BaseException:
                    lease.release()
                    raise
                if into is not None:
                    lease.release()  # ours: the medium takes the caller's over
            self._routes.acknowledge(way, peer, descriptor.token)
        self._count(way, descriptor.nbytes)
        return _media(descriptor, lease, specs, metadata, Stage("read", started, time.perf_counter() - started))

    async def aread(self, descriptor: Descriptor, *, into: Lease | None = None, timeout_seconds: float = 5.0) -> Media:
        """``read`` off the event loop. When it is cancelled, what is read meanwhile is released by the thread; ``into``
        stays the caller's, quarantined until the thread has ended."""
        known = self._check(descriptor, timeout_seconds)
        future = self._pool.submit(self._read, descriptor, known, into, time.monotonic() + timeout_seconds)
        try:
            return await result_of(future)
        except asyncio.CancelledError:
            if into is None:
                future.add_done_callback(_release_result)
            else:
                into.quarantine()  # which also keeps the thread from sealing it
                future.add_done_callback(lambda _: into.readmit())
            raise

    @contextlib.contextmanager
    def map(self, descriptor: Descriptor, *, timeout_seconds: float = 5.0) -> Iterator[Media]:
        """Look at a medium in the publisher's own memory, on this host, with no copy. Read-only; valid in the ``with``.

        The block is acknowledged at the end of the ``with``, unless that ends in an error: publish it for as long as it
        is looked at.

        Raises:
            StaleDescriptor: recycled before, or at the end: recycled meanwhile; throw away what was made of it.
            PeerUnavailable: the publisher is gone, or not on this host, or its memory is on a GPU.
            InvalidDescriptor, Closed: as ``read``.
        """
        peer, specs, metadata = self._check(descriptor, timeout_seconds)
        started, deadline = time.perf_counter(), time.monotonic() + timeout_seconds
        with self._reading(peer):
            look = self._routes.look(peer, descriptor, deadline)
        stage = Stage("map", started, time.perf_counter() - started)
        try:
            yield _media(descriptor, look.storage, specs, metadata, stage)
        finally:
            look.storage.release()
        try:
            look.verify()
        except StaleDescriptor:
            self._count("stale")
            raise
        self._routes.acknowledge("shm", peer, descriptor.token)
        self._count("shm", descriptor.nbytes)

    def renew(self, descriptor: Descriptor, *, timeout_seconds: float = 5.0) -> bool:
        """Ask the publisher for as much time again as the medium had at first, say while it is mapped; false if the
        publisher is gone, or takes no more messages now. Whether the medium is still on offer it does not tell: the read or the end of ``map`` does.

        Raises:
            PeerUnavailable: there is no way to the publisher, or the medium lies in a file.
            InvalidDescriptor, Closed: as ``read``.
        """
        peer, _, _ = self._check(descriptor, timeout_seconds)
        return self._routes.renew(peer, descriptor, time.monotonic() + timeout_seconds)

    def statistics(self) -> ReaderStatistics:
        """A snapshot."""
        self._routes.sweep()
        quarantined, quarantined_bytes = self._routes.quarantined
        with self._lock:
            counts = self._counts
            return ReaderStatistics(
                reads=sum(counts[way] for way in WAYS),
                read_bytes=counts["read_bytes"],
                reads_by_transport={way: counts[way] for way in WAYS},
                stale=counts["stale"],
                timeouts=counts["timeouts"],
                failures=counts["failures"],
                reconnects=counts["reconnects"],
                rebuilt_agents=counts["rebuilt_agents"],
                refused=counts["refused"],
                unacknowledged=counts["unacknowledged"],
                quarantined=quarantined,
                quarantined_bytes=quarantined_bytes,
                peers=self._routes.num_peers,
            )

    def close(self) -> None:
        """Stop; harmless when repeated. Media that were read stay valid until they are released."""
        with self._lock:
            if self._closed or self._process != os.getpid():
                return
            self._closed = True
        if self._owns_slab:
            self.slab.close(force=True)  # ends waits for room; we hold its memory
        self._routes.interrupt()
        with self._idle:
            self._idle.wait_for(lambda: self._active == 0, CLOSE_SECONDS)
        self._pool.shutdown(wait=False)
        if self._routes.close():
            self._let_slab_go()
        else:  # a read that timed out may still write to it: it stays mapped
            self.slab.unhold()

    async def aclose(self) -> None:
        """``close`` off the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self._process == os.getpid():
            text = "a Reader was never closed: use 'with', or call close()"
            log.warning(text)
            warnings.warn(text, ResourceWarning, stacklevel=2)

    def __reduce__(self) -> Any:
        raise TypeError("a Reader has connections of this process and cannot be pickled: make one in each process")

    def _check(self, descriptor: Descriptor, timeout_seconds: float) -> _Known:
        """The publisher, tensors and metadata of a descriptor that makes sense."""
        if not isinstance(descriptor, Descriptor):
            raise InvalidDescriptor(
                f"a Descriptor is needed: Descriptor.from_bytes(raw); got {type(descriptor).__name__}"
            )
        specs, metadata = descriptor.check()
        if not 0 < timeout_seconds < math.inf:
            raise ValueError(f"timeout_seconds is above 0 and finite; got {timeout_seconds}")
        if self._process != os.getpid():
            raise Closed("this reader was made before a fork and belongs to the parent: make one in this process")
        self._require_open()
        return self._peer(descriptor.peer), specs, metadata

    def _peer(self, named: Peer | bytes) -> Peer:
        with self._lock:
            if isinstance(named, Peer):
                known = self._peers_by_name.get(named.agent)
                return named if known == named else self._remember(named)
            peer = self._peers.get(named)
        if peer is None:
            raise InvalidDescriptor(
                "a compact descriptor of a publisher that this reader does not know: add_peer first"
            )
        return peer

    def _remember(self, peer: Peer) -> Peer:
        reference = peer.reference
        self._peers_by_name[peer.agent] = self._peers[reference] = peer
        if len(self._peers) > MAX_PEERS:
            dropped = self._peers.popitem(last=False)[1]
            self._peers_by_name.pop(dropped.agent, None)
        return peer

    def _target(self, descriptor: Descriptor, into: Lease | None, deadline: float) -> Lease:
        if into is None:
            return self.slab.allocate(descriptor.nbytes, timeout_seconds=max(0.0, deadline - time.monotonic()))
        if not isinstance(into, Lease) or into.slab is not self.slab or into.sealed or into.nbytes < descriptor.nbytes:
            raise ValueError(
                f"into is an unsealed block of this reader's slab, of {descriptor.nbytes} bytes or more; got {into!r}"
            )
        into.require(descriptor.nbytes)
        return into.retain()  # nobody else gets it while it is read into, whatever the caller does

    @contextlib.contextmanager
    def _reading(self, peer: Peer) -> Iterator[None]:
        """One read under way, for which ``close`` waits: count how it ends, for the reader and for its publisher."""
        with self._lock:
            self._require_open()
            breaker = self._breaker(peer)
            self._active += 1
        try:
            yield
            breaker.succeeded()
        except GpuflowError as error:
            with self._lock:
                if isinstance(error, StaleDescriptor):
                    self._counts["stale"] += 1
                elif isinstance(error, TransferTimeout):
                    self._counts["timeouts"] += 1
                    breaker.failed(time.monotonic())
                elif isinstance(error, PeerUnavailable) and not isinstance(error, NoWay):
                    self._counts["failures"] += 1
                    breaker.failed(time.monotonic())
            self._require_open()
            raise
        finally:
            with self._idle:
                self._active -= 1
                self._idle.notify_all()

    def _breaker(self, peer: Peer) -> Breaker:
        breaker = self._breakers.get(peer)
        if breaker is None:
            breaker = self._breakers[peer] = Breaker()
            if len(self._breakers) > MAX_PEERS:
                self._breakers.popitem(last=False)
        try:
            breaker.check(time.monotonic())
        except PeerUnavailable:
            self._counts["refused"] += 1
            raise
        return breaker

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("the reader is closed")

    def _let_slab_go(self) -> None:
        self.slab.unhold()
        if self._owns_slab:
            self.slab.close(force=True)

    def _count(self, what: str, nbytes: int = 0) -> None:
        with self._lock:
            self._counts[what] += 1
            self._counts["read_bytes"] += nbytes


def _media(
    descriptor: Descriptor, storage: Storage, specs: tuple[TensorSpec, ...], metadata: Metadata, stage: Stage
) -> Media:
    return MEDIA_KINDS[descriptor.kind](
        storage,
        specs,
        metadata,
        backend=descriptor.backend,
        fallback=descriptor.fallback,
        stages=(stage,),
        content_hash=descriptor.content_hash,
    )


def _release_result(future: Any) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().release()
