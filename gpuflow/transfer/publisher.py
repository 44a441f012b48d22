"""Hands out descriptors of leased media, and frees the blocks when the readers say so."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Iterable
from typing import Any

from gpuflow.media import Media
from gpuflow.memory import Lease, Slab
from gpuflow.memory.backing import device_id
from gpuflow.memory.generations import SLOT_BYTES
from gpuflow.transfer import inproc
from gpuflow.transfer.board import Board
from gpuflow.transfer.descriptor import Descriptor, Peer
from gpuflow.transfer.offering import Offering, lease_of
from gpuflow.transfer.shm import MAX_SLABS, ShmServer
from gpuflow.transfer.statistics import PublisherStatistics
from gpuflow.transfer.transports import Transport, available


class Publisher(Offering):
    """One or more slabs, registered once. Publishing keeps a block alive until it was read ``reads`` times or its time
    is over, whatever happens to the medium that it came from. Thread-safe.

    Peers must be trusted: who holds a descriptor can read this process's registered memory.

    Args:
        slabs: where the media lie that will be published.
        transports: ways that readers may take; ``None``: all that are to be had here (``"inproc"``; ``"shm"`` for
            readers on this host; ``"nixl"``).

    Raises:
        BackendUnavailable: a transport was asked for that is not installed, or does not start.
        SlabClosed: a slab was closed.
    """

    def __init__(self, *slabs: Slab, transports: Transport | Iterable[Transport] | None = None) -> None:
        if not 1 <= len(slabs) <= MAX_SLABS:
            raise ValueError(f"a publisher has 1 to {MAX_SLABS} slabs; got {len(slabs)}")
        for slab in slabs:
            if not isinstance(slab, Slab):
                raise TypeError(f"a publisher takes slabs, say flow.slab; got {type(slab).__name__}")
        self.slabs = slabs
        self.transports = available(transports)
        self._held: list[Slab] = []
        self._agent: Any = None
        self._shm: ShmServer | None = None
        self._board = Board(collect=self._messages)
        try:
            self.peer = self._open()
        except BaseException:
            self._close_ways()
            raise
        if "inproc" in self.transports:
            inproc.enlist(self)

    @property
    def slab(self) -> Slab:
        """The first slab."""
        return self.slabs[0]

    def publish(self, media: Media, *, reads: int | None = 1, ttl_seconds: float = 5.0) -> Descriptor:
        """Offer a medium to ``reads`` readers (``None``: to any number) for ``ttl_seconds`` (at most 300).

        Waits for work that a GPU still does on the block; takes some 10 us otherwise. ``reads`` says when the block is
        free, not who may read: as long as its owner keeps it too, a reader that comes later still finds it.

        Raises:
            ValueError: the medium lies in another slab or is not sealed, or an argument is out of range.
            LeaseExpired: the medium was released.
            Closed: the publisher was closed.
        """
        lease = lease_of(media)
        if lease.slab not in self.slabs:
            raise ValueError("the medium lies in another slab than the publisher's")
        self._board.check(reads, ttl_seconds)
        lease.synchronize()
        generation = lease.publish()
        token = self._board.offer(lease, lease.slot, generation, reads, ttl_seconds)
        return self._describe(
            media,
            token,
            ttl_seconds,
            mem_type="DRAM" if lease.device == "cpu" else "VRAM",
            device_id=device_id(lease.device),
            address=lease.address,
            table_address=lease.slab.generations.memory.address + lease.slot * SLOT_BYTES,
            slot=lease.slot,
            generation=generation,
        )

    async def apublish(self, media: Media, *, reads: int | None = 1, ttl_seconds: float = 5.0) -> Descriptor:
        """``publish``; where it waits for a GPU, it does so in a thread."""
        if not lease_of(media).busy:
            return self.publish(media, reads=reads, ttl_seconds=ttl_seconds)
        return await asyncio.to_thread(self.publish, media, reads=reads, ttl_seconds=ttl_seconds)

    def lend(self, descriptor: Descriptor) -> Lease:
        """The block itself, retained once more, for a reader in this process; ``acknowledge`` it too.

        Raises:
            StaleDescriptor: the publication has ended.
        """
        return self._board.lend(descriptor)

    def acknowledge(self, token: bytes) -> None:
        """A reader in this process is done."""
        self._board.hear(token)

    def statistics(self) -> PublisherStatistics:
        """A snapshot."""
        return self._board.statistics(shm_readers=self._shm.num_readers if self._shm else 0)

    def close(self) -> None:
        """Withdraw everything and stop; harmless when repeated."""
        inproc.delist(self)
        if self._board.close():
            self._close_ways()

    def _abandon(self) -> None:
        super()._abandon()
        if self._shm is not None:
            self._shm.stop()

    def _open(self) -> Peer:
        for slab in self.slabs:
            slab.hold()
            self._held.append(slab)
        name, metadata = f"gpuflow/{socket.gethostname()[:24]}/{os.getpid()}/{uuid.uuid4().hex[:16]}", b""
        if "nixl" in self.transports:
            from gpuflow.transfer.nixl import Agent

            self._agent = Agent(name)
            for slab in self.slabs:
                self._agent.register_slab(slab)
                self._agent.register_host(slab.generations.memory)
            metadata = self._agent.metadata()
        if "shm" in self.transports and any(slab.device == "cpu" for slab in self.slabs):
            self._shm = ShmServer(self.slabs, self._board.hear)
        return Peer(name, metadata, self._shm.name if self._shm else b"", self._shm.secret if self._shm else b"")

    def _close_ways(self) -> None:
        self._board.close()
        if self._shm is not None:
            self._shm.close()
        if self._agent is not None:
            self._agent.close()
        while self._held:
            self._held.pop().unhold()

    def _messages(self) -> Iterable[bytes]:
        return self._agent.messages() if self._agent is not None else ()
