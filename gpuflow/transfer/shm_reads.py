"""Reads of publishers on this host, out of their mapped memory; a connection a publisher is kept."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from gpuflow.errors import PeerUnavailable, StaleDescriptor, TransferTimeout
from gpuflow.memory import Lease
from gpuflow.memory.copying import copy_in
from gpuflow.transfer.borrowed import Borrowed
from gpuflow.transfer.descriptor import Descriptor, Peer
from gpuflow.transfer.shm import ShmConnection

MAX_PEERS = 256
RETRY_SECONDS = 30.0  # a publisher that was not to be reached so is asked again
BUSY_SECONDS = 1.0  # and one that was there, and did not answer in time
CONNECT_SECONDS = 1.0


class ShmReads:
    """Mapped publishers, the one used longest ago first to go. Thread-safe."""

    def __init__(self) -> None:
        self._connections: OrderedDict[Peer, ShmConnection] = OrderedDict()
        self._unreachable: dict[Peer, float] = {}
        self._connecting: dict[Peer, threading.Lock] = {}
        self._lock = threading.Lock()

    def reaches(self, peer: Peer, deadline: float) -> bool:
        """Whether the publisher's memory is mapped, or can be."""
        try:
            self._connection(peer, deadline)
        except (PeerUnavailable, TransferTimeout):
            return False
        return True

    def read(self, peer: Peer, descriptor: Descriptor, lease: Lease, deadline: float) -> None:
        """Copy a block, and check that it was not recycled meanwhile.

        Raises:
            StaleDescriptor: it was.
            PeerUnavailable: the publisher is gone.
            InvalidDescriptor: the block is not its own.
        """
        connection = self._alive(peer, deadline)
        source = connection.locate(descriptor.address, descriptor.nbytes)
        verify(connection, descriptor)
        copy_in(source, lease, descriptor.nbytes)
        verify(connection, descriptor)

    def look(self, peer: Peer, descriptor: Descriptor, deadline: float) -> Look:
        """The publisher's own bytes; raises as ``read`` does."""
        connection = self._alive(peer, deadline)
        look = Look(Borrowed(connection.block(descriptor.address, descriptor.nbytes)), connection, descriptor)
        look.verify()
        return look

    def send(self, peer: Peer, message: bytes) -> None:
        """Send the publisher an acknowledgement, or a wish.

        Raises:
            PeerUnavailable: it is gone, or takes no messages now.
        """
        with self._lock:
            connection = self._connections.get(peer)
        if connection is None:
            raise PeerUnavailable("the publishing process is not connected")
        connection.send(message)

    @property
    def num_peers(self) -> int:
        """Publishers that are mapped."""
        return len(self._connections)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()

    def _alive(self, peer: Peer, deadline: float) -> ShmConnection:
        connection = self._connection(peer, deadline)
        if not connection.alive:
            self._drop(peer)
            raise PeerUnavailable("the publishing process is gone")
        return connection

    def _connection(self, peer: Peer, deadline: float) -> ShmConnection:
        with self._lock:
            connection = self._connections.get(peer)
            if connection is not None:
                self._connections.move_to_end(peer)
                return connection
            connecting = self._connecting.setdefault(peer, threading.Lock())
        if not connecting.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TransferTimeout("another thread is connecting to the publishing process")
        try:
            return self._connections.get(peer) or self._connect(peer, deadline)
        finally:
            connecting.release()
            with self._lock:
                self._connecting.pop(peer, None)

    def _connect(self, peer: Peer, deadline: float) -> ShmConnection:
        now = time.monotonic()
        if now < self._unreachable.get(peer, 0.0):
            raise PeerUnavailable("the publishing process was not to be reached on this host lately")
        timeout = max(0.001, min(CONNECT_SECONDS, deadline - now))
        try:
            connection = ShmConnection(peer.shm, peer.secret, timeout_seconds=timeout)
        except (PeerUnavailable, TransferTimeout) as error:
            rest = BUSY_SECONDS if isinstance(error, TransferTimeout) else RETRY_SECONDS
            with self._lock:
                self._unreachable[peer] = now + rest
                if len(self._unreachable) > MAX_PEERS:
                    del self._unreachable[next(iter(self._unreachable))]
            raise
        with self._lock:
            self._connections[peer] = connection
            if len(self._connections) > MAX_PEERS:
                self._connections.popitem(last=False)[1].close()
        return connection

    def _drop(self, peer: Peer) -> None:
        with self._lock:
            connection = self._connections.pop(peer, None)
        if connection is not None:
            connection.close()


@dataclass(frozen=True, slots=True)
class Look:
    """A view of a publisher's block, and the means to see whether it is still the block."""

    storage: Borrowed
    connection: ShmConnection
    descriptor: Descriptor

    def verify(self) -> None:
        """Raise ``StaleDescriptor`` if the block was recycled meanwhile."""
        verify(self.connection, self.descriptor)


def verify(connection: ShmConnection, descriptor: Descriptor) -> None:
    """Raise ``StaleDescriptor`` unless the block's generation is the descriptor's."""
    if connection.generation(descriptor.table_address) != descriptor.generation:
        raise StaleDescriptor("the block was recycled before it was read")
