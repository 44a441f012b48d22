"""Verified one-sided reads over NIXL into one slab: wire-up, generation check, quarantine, recovery."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gpuflow.errors import PeerUnavailable, StaleDescriptor, TransferTimeout
from gpuflow.memory import Lease, Slab
from gpuflow.memory.backing import HostMemory, device_id
from gpuflow.transfer.descriptor import Descriptor, Peer
from gpuflow.transfer.nixl import Agent, Poisoned, Region, Unfinished

RECONNECT_SECONDS = 0.05
REPLACE_SECONDS = 10.0
ZOMBIE_SECONDS = 60.0
WIRE_UP_SECONDS = 1.5  # a first read takes 20 ms on an idle machine, 700 on a busy one
_WORDS = 512


class Hung(TransferTimeout):
    """A first contact that does not end."""


@dataclass(slots=True, eq=False)
class _Zombie:
    """A read that timed out, and what it may still write to."""

    agent: Agent
    handle: Any
    lease: Lease | None
    word: int
    since: float


class NixlReads:
    """One NIXL agent, replaced when it can load a peer no more. Thread-safe.

    Raises:
        BackendUnavailable: NIXL is not installed or does not start.
    """

    def __init__(self, slab: Slab, counts: Counter[str], lock: threading.Lock) -> None:
        self._slab = slab
        self._device_id = device_id(slab.device)
        self._words = HostMemory(8 * _WORDS, name="gpuflow-words")  # where generation words are read to
        self._free_words = list(range(_WORDS))
        self._kept_words: set[int] = set()  # of reads that were set aside
        self._zombies: list[_Zombie] = []
        self._sweeping = threading.Lock()
        self._counts = counts
        self._lock = lock
        self._replacing = threading.Lock()
        self._replaced_at = -REPLACE_SECONDS
        self._agent = self._new_agent()

    def read(self, peer: Peer, descriptor: Descriptor, lease: Lease, deadline: float) -> None:
        """Read a block and its generation, by ``deadline`` (``time.monotonic``). When the connection turns out dead,
        it is dropped, and tried once more after a little; when the agent cannot load the peer any more, with a new one.

        Raises:
            StaleDescriptor: the block was recycled.
            TransferTimeout: not done in time; the lease is quarantined and retained until the read has ended.
            PeerUnavailable: the peer is gone.
        """
        with self._word() as word:
            try:
                self._read_recovering(peer, descriptor, lease, word, deadline)
            except Unfinished as error:
                self._set_aside(_Zombie(error.agent, error.handle, lease.retain(), word, time.monotonic()))
                raise TransferTimeout(f"the read of {descriptor.nbytes} bytes did not end in time") from error

    def send(self, peer: Peer, message: bytes) -> None:
        """Send the publisher an acknowledgement, or a wish.

        Raises:
            PeerUnavailable: it is gone.
        """
        self._agent.notify(peer.agent, message)

    def sweep(self) -> None:
        """Give back what timed-out reads held, of those that have ended."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            for zombie in list(self._zombies):
                if zombie.agent.finished(zombie.handle):
                    self._bury(zombie)
                elif self._given_up(zombie):
                    with self._lock:  # its word is never used again; its agent ends with its last user
                        self._zombies.remove(zombie)
        finally:
            self._sweeping.release()

    @property
    def quarantined(self) -> tuple[int, int]:
        """Reads that timed out and have not ended, and the bytes that they may still write."""
        with self._lock:
            return len(self._zombies), sum(zombie.lease.nbytes for zombie in self._zombies if zombie.lease)

    @property
    def num_peers(self) -> int:
        """Peers that are connected."""
        return self._agent.num_peers

    def interrupt(self) -> None:
        """End all waits."""
        self._agent.interrupt()

    def close(self) -> bool:
        """Stop; false if a timed-out read may still write to the slab, which must then stay mapped."""
        self.sweep()
        self._agent.close()
        if self._zombies:
            return False
        self._words.close()
        return True

    def _given_up(self, zombie: _Zombie) -> bool:
        """A first contact that hangs for good, in an agent that was replaced."""
        old = time.monotonic() - zombie.since > ZOMBIE_SECONDS
        return old and zombie.lease is None and zombie.agent is not self._agent

    def _bury(self, zombie: _Zombie) -> None:
        with self._lock:
            self._zombies.remove(zombie)
            self._kept_words.discard(zombie.word)
            self._free_words.append(zombie.word)
        if zombie.lease is not None:
            zombie.lease.readmit()
            zombie.lease.release()

    def _read_recovering(self, peer: Peer, descriptor: Descriptor, lease: Lease, word: int, deadline: float) -> None:
        reconnected = replaced = False
        while True:
            agent = self._agent
            try:
                self._read_verified(agent, peer, descriptor, lease, word, deadline)
                return
            except Hung:
                if time.monotonic() >= deadline:
                    agent.forget(peer.agent)  # which ends what hangs
                    raise
                self._count("reconnects")
                if not self._replace_agent(agent, at_most_every=REPLACE_SECONDS):
                    agent.forget(peer.agent)
            except Poisoned:
                if replaced:
                    raise
                replaced = self._replace_agent(agent)
            except PeerUnavailable:
                if reconnected or time.monotonic() + RECONNECT_SECONDS >= deadline:
                    raise
                reconnected = True
                self._count("reconnects")
                agent.forget(peer.agent)
                time.sleep(RECONNECT_SECONDS)  # NIXL closes connections in the background

    def _read_verified(
        self, agent: Agent, peer: Peer, descriptor: Descriptor, lease: Lease, word: int, deadline: float
    ) -> None:
        self._connect(agent, peer, descriptor, deadline)
        local = Region(self._slab.backing.mem_type, lease.address, descriptor.nbytes, self._device_id)
        remote = Region(descriptor.mem_type, descriptor.address, descriptor.nbytes, descriptor.device_id)
        agent.read(peer.agent, [(local, remote)], deadline=deadline)
        agent.read(peer.agent, [self._word_pair(word, descriptor)], deadline=deadline)
        if int.from_bytes(self._words.buffer(8 * word, 8), "little") != descriptor.generation:
            raise StaleDescriptor("the block was recycled before it was read")

    def _connect(self, agent: Agent, peer: Peer, descriptor: Descriptor, deadline: float) -> None:
        """Connect; on first contact read one word, with which the lanes come up.

        Raises:
            Hung: that does not end. One first contact of several thousand did not, for a reason that was not found,
                even when the peer was connected anew; the next agent of this process reached it at once.
        """
        agent.connect(peer.agent, peer.nixl)
        if agent.answered(peer.agent):
            return
        with self._word() as word:
            try:
                ends = min(deadline, time.monotonic() + WIRE_UP_SECONDS)
                agent.read(peer.agent, [self._word_pair(word, descriptor)], deadline=ends)
            except Unfinished as error:
                self._set_aside(_Zombie(agent, error.handle, None, word, time.monotonic()))
                raise Hung("the publishing process did not answer in time") from error

    def _word_pair(self, word: int, descriptor: Descriptor) -> tuple[Region, Region]:
        return Region("DRAM", self._words.address + 8 * word, 8), Region("DRAM", descriptor.table_address, 8)

    def _new_agent(self) -> Agent:
        agent = Agent(f"gpuflow.reader/{socket.gethostname()[:24]}/{os.getpid()}/{uuid.uuid4().hex[:16]}")
        agent.register_slab(self._slab)
        agent.register_host(self._words)
        return agent

    def _replace_agent(self, broken: Agent, *, at_most_every: float = 0.0) -> bool:
        """NIXL can forget a peer for good; then only another agent reaches it. The old one lives while it is used.
        False if one was made lately."""
        with self._replacing:
            if self._agent is not broken:
                return True
            if time.monotonic() < self._replaced_at + at_most_every:
                return False
            self._agent = self._new_agent()
            self._replaced_at = time.monotonic()
            self._count("rebuilt_agents")
            return True

    @contextmanager
    def _word(self) -> Iterator[int]:
        """A word to read a generation to; a read that was set aside keeps it."""
        with self._lock:
            if not self._free_words:
                raise TransferTimeout(f"{_WORDS} reads are under way or timed out: none can be added")
            word = self._free_words.pop()
        try:
            yield word
        finally:
            with self._lock:
                if word not in self._kept_words:
                    self._free_words.append(word)

    def _set_aside(self, zombie: _Zombie) -> None:
        """A timed-out read still writes: its destination is not reused before it has ended."""
        if zombie.lease is not None:
            zombie.lease.quarantine()
        with self._lock:
            self._zombies.append(zombie)
            self._kept_words.add(zombie.word)

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1
