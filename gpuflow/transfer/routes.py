"""The ways of one reader to publishers: which is taken, and how a block comes over it."""

from __future__ import annotations

import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Literal

from gpuflow.errors import PeerUnavailable
from gpuflow.memory import Lease, Slab
from gpuflow.memory.copying import copy_block
from gpuflow.transfer import inproc
from gpuflow.transfer.board import RENEW, acknowledgement
from gpuflow.transfer.descriptor import Descriptor, Peer
from gpuflow.transfer.files import Directory
from gpuflow.transfer.shm_reads import Look, ShmReads
from gpuflow.transfer.transports import Transport

if TYPE_CHECKING:
    from gpuflow.transfer.nixl_reads import NixlReads
    from gpuflow.transfer.publisher import Publisher

Way = Literal["inproc", "shm", "nixl", "file"]
WAYS: tuple[Way, ...] = ("inproc", "shm", "nixl", "file")


class NoWay(PeerUnavailable):
    """Not the publisher's fault: nothing that this reader may use leads to it."""


class Routes:
    """Thread-safe. NIXL is started for the first publisher that is reached by nothing else, or at once where it is the
    only way that may be taken."""

    def __init__(
        self,
        slab: Slab,
        transports: frozenset[Transport],
        directory: str | os.PathLike[str] | None,
        counts: Counter[str],
        lock: threading.Lock,
    ) -> None:
        self._slab = slab
        self._transports = transports
        self._counts = counts
        self._lock = lock
        self._directory = None if directory is None else Directory(directory)
        self._shm = ShmReads()
        self._starting = threading.Lock()
        self._nixl: NixlReads | None = None
        if transports == {"nixl"}:
            self._start_nixl()

    def choose(self, peer: Peer, descriptor: Descriptor, deadline: float) -> Way:
        """The shortest way to a publisher.

        Raises:
            PeerUnavailable: it is gone; ``NoWay``: there never was one.
        """
        if descriptor.file:
            if self._directory is None:
                raise NoWay("the medium lies in a file, and this reader was given no directory")
            return "file"
        if "inproc" in self._transports and inproc.find(peer.agent) is not None:
            return "inproc"
        if self._maps(peer, descriptor, deadline):
            return "shm"
        if "nixl" in self._transports and peer.nixl:
            return "nixl"
        if self._could_map(peer, descriptor):
            raise PeerUnavailable("the publishing process cannot be reached on this host")
        raise NoWay("the publishing process cannot be reached by any transport that this reader may use")

    def share(self, peer: Peer, descriptor: Descriptor) -> Lease | None:
        """The block of a publisher in this process itself, retained; ``None`` if it lies on another device than the
        reader's media.

        Raises:
            StaleDescriptor: the publication has ended.
        """
        lease = _here(peer).lend(descriptor)
        if lease.device == self._slab.device:
            return lease
        lease.release()
        return None

    def read(self, way: Way, peer: Peer, descriptor: Descriptor, lease: Lease, deadline: float) -> None:
        """Bring a block over, verified; raises what ``Reader.read`` does."""
        if way == "inproc":
            with _here(peer).lend(descriptor) as source:
                copy_block(source, lease, descriptor.nbytes)
        elif way == "shm":
            self._shm.read(peer, descriptor, lease, deadline)
        elif way == "file" and self._directory is not None:
            self._directory.read(descriptor, lease)
        else:
            self._start_nixl().read(peer, descriptor, lease, deadline)

    def look(self, peer: Peer, descriptor: Descriptor, deadline: float) -> Look:
        """A publisher's block where it lies, on this host.

        Raises:
            PeerUnavailable: it cannot be mapped from here.
            StaleDescriptor: it was recycled.
        """
        if not self._maps(peer, descriptor, deadline):
            raise NoWay("the publisher's memory cannot be mapped from here: use read()")
        return self._shm.look(peer, descriptor, deadline)

    def acknowledge(self, way: Way, peer: Peer, token: bytes) -> None:
        """Tell the publisher that its block was read. When it is gone it is only counted: the bytes are here."""
        if not self._send(way, peer, acknowledgement(token)):
            with self._lock:
                self._counts["unacknowledged"] += 1

    def renew(self, peer: Peer, descriptor: Descriptor, deadline: float) -> bool:
        """Ask the publisher for more time; false if it is gone, or takes no message now.

        Raises:
            PeerUnavailable: there is no way to it.
        """
        way = self.choose(peer, descriptor, deadline)
        if way == "file":
            raise NoWay("the medium lies in a file: nobody can be asked for more time")
        return self._send(way, peer, RENEW + descriptor.token)

    def _send(self, way: Way, peer: Peer, message: bytes) -> bool:
        try:
            if way == "inproc":
                _here(peer).acknowledge(message)
            elif way == "shm":
                self._shm.send(peer, message)
            elif way == "nixl":
                self._start_nixl().send(peer, message)
        except PeerUnavailable:
            return False
        return True

    def sweep(self) -> None:
        """Give back what timed-out reads held, of those that have ended."""
        if self._nixl is not None:
            self._nixl.sweep()

    @property
    def quarantined(self) -> tuple[int, int]:
        """Reads that timed out and have not ended, and the bytes that they may still write."""
        return self._nixl.quarantined if self._nixl is not None else (0, 0)

    @property
    def num_peers(self) -> int:
        """Publishers that are connected, over all ways."""
        return self._shm.num_peers + (self._nixl.num_peers if self._nixl is not None else 0)

    def interrupt(self) -> None:
        """End all waits of reads, as if their time were over."""
        if self._nixl is not None:
            self._nixl.interrupt()

    def close(self) -> bool:
        """Stop; false if a timed-out read may still write to the slab, which must then stay mapped."""
        self._shm.close()
        if self._directory is not None:
            self._directory.close()
        return self._nixl is None or self._nixl.close()

    def _maps(self, peer: Peer, descriptor: Descriptor, deadline: float) -> bool:
        return self._could_map(peer, descriptor) and self._shm.reaches(peer, deadline)

    def _could_map(self, peer: Peer, descriptor: Descriptor) -> bool:
        return "shm" in self._transports and descriptor.mem_type == "DRAM" and bool(peer.shm)

    def _start_nixl(self) -> NixlReads:
        with self._starting:
            if self._nixl is None:
                from gpuflow.transfer.nixl_reads import NixlReads

                self._nixl = NixlReads(self._slab, self._counts, self._lock)
            return self._nixl


def _here(peer: Peer) -> Publisher:
    publisher = inproc.find(peer.agent)
    if publisher is None:
        raise PeerUnavailable("the publisher was closed")
    return publisher
