"""The lower tiers as one: a block goes to the first that takes it, and what lies there longest goes further down."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from gpuflow.errors import DeadlineExceeded, LeaseExpired, SpillError
from gpuflow.memory.lease import Lease
from gpuflow.memory.tiers import Ticket, Tier, TierFull
from gpuflow.observe import log

FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 60.0
CLOSE_SECONDS = 10.0


class Owner(Protocol):
    """Who is told that its block was dropped."""

    dropped: bool


@dataclass(slots=True, eq=False)
class Stay:
    """A block's stay in a tier. ``gone``: it was dropped for want of room. ``doomed``: to be dropped when it is neither
    read nor moved any more."""

    owner: Owner
    tier: int
    tier_name: str
    ticket: Ticket | None
    gone: bool = False
    doomed: bool = False
    moving: bool = False
    readers: int = 0


class Cascade:
    """Reads and drops are thread-safe, and wait for no write; ``put`` is for one thread at a time. A tier that fails
    rests for 1 s, then 2, 4 ... 60."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tuple(tiers)
        self._stays: list[OrderedDict[Stay, None]] = [OrderedDict() for _ in tiers]
        self._rests_until = [0.0] * len(self._tiers)
        self._failures_in_a_row = [0] * len(self._tiers)
        self._changed = threading.Condition()
        self.failures = 0
        self.drops = 0

    def put(self, lease: Lease, owner: Owner) -> Stay | None:
        """Copy a block to the first tier that takes it. ``None``: those that could take it fail or rest.
        ``stay.gone``: none is large enough."""
        failed = False
        for number, tier in enumerate(self._tiers):
            if lease.nbytes > tier.capacity_bytes:
                continue
            ticket = self._put_into(number, lease)
            if ticket is not None:
                stay = Stay(owner, number, tier.name, ticket)
                with self._changed:
                    self._stays[number][stay] = None
                return stay
            failed = True
        return None if failed else Stay(owner, -1, "dropped", None, gone=True)

    @contextmanager
    def reading(self, stay: Stay, *, deadline: float) -> Iterator[Callable[[Lease], None]]:
        """Hold a block where it is, and copy it back, verified, with what this gives.

        Raises:
            SpillError: it could not be read, or its bytes have changed.
            LeaseExpired: it was dropped meanwhile.
            DeadlineExceeded: it is being moved, and that did not end by ``deadline``.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not stay.moving, max(0.0, deadline - time.monotonic())):
                raise DeadlineExceeded("the medium is being moved between tiers, and did not arrive in time")
            if stay.ticket is None:
                raise LeaseExpired("the medium was dropped for want of memory")
            stay.readers += 1
            tier, ticket = self._tiers[stay.tier], stay.ticket
        try:
            yield functools.partial(tier.get, ticket)
        finally:
            with self._changed:
                stay.readers -= 1
                self._settle(stay)

    def drop(self, stay: Stay) -> None:
        """Forget a block; harmless when repeated."""
        with self._changed:
            stay.doomed = True
            self._settle(stay)

    def statistics(self) -> list[tuple[str, int, int]]:
        """Name, blocks and bytes of each tier."""
        with self._changed:
            return [
                (tier.name, len(stays), sum(stay.ticket.nbytes for stay in stays if stay.ticket))
                for tier, stays in zip(self._tiers, self._stays, strict=True)
            ]

    def close(self) -> None:
        """Drop everything and close the tiers, when nothing is read any more."""
        with self._changed:
            stays = [stay for stays in self._stays for stay in stays]
            for stay in stays:
                stay.owner.dropped = stay.doomed = True
                self._settle(stay)
            self._changed.wait_for(lambda: not any(self._stays), CLOSE_SECONDS)
        for tier in self._tiers:
            tier.close()

    def _put_into(self, number: int, lease: Lease) -> Ticket | None:
        """Copy a block into one tier, where room is made for it; ``None`` if the tier fails or rests."""
        if time.monotonic() < self._rests_until[number]:
            return None
        try:
            while True:
                try:
                    ticket = self._tiers[number].put(lease)
                except TierFull:
                    if not self._move_down(number):
                        return None  # all that lies there is being read
                else:
                    self._failures_in_a_row[number] = 0
                    return ticket
        except SpillError:
            log.warning("a block could not be spilled to the %s tier", self._tiers[number].name, exc_info=True)
            self.failures += 1
            rest = FIRST_REST_SECONDS * 2.0 ** min(self._failures_in_a_row[number], 10)
            self._failures_in_a_row[number] += 1
            self._rests_until[number] = time.monotonic() + min(rest, LONGEST_REST_SECONDS)
            return None

    def _move_down(self, number: int) -> bool:
        """Make room in a tier: what came first goes to the next one that takes it, or is dropped. False if nothing can
        be moved now."""
        with self._changed:
            stay = next((stay for stay in self._stays[number] if not stay.readers), None)
            if stay is None or stay.ticket is None:
                return False
            stay.moving = True
            ticket, lease = stay.ticket, self._tiers[number].lease_of(stay.ticket)
        below, moved = self._put_below(number, lease)
        with self._changed:
            del self._stays[number][stay]
            stay.moving, stay.tier, stay.ticket = False, below, moved
            if moved is None:
                stay.gone = stay.owner.dropped = True
                self.drops += 1
            else:
                stay.tier_name = self._tiers[below].name
                self._stays[below][stay] = None
            self._settle(stay)
        self._tiers[number].drop(ticket)
        return True

    def _put_below(self, number: int, lease: Lease | None) -> tuple[int, Ticket | None]:
        for below in range(number + 1, len(self._tiers)) if lease is not None else ():
            if lease is not None and lease.nbytes <= self._tiers[below].capacity_bytes:
                moved = self._put_into(below, lease)
                if moved is not None:
                    return below, moved
        return -1, None

    def _settle(self, stay: Stay) -> None:
        """Drop a doomed block once nobody reads or moves it."""
        if stay.doomed and not stay.moving and not stay.readers and stay.ticket is not None:
            del self._stays[stay.tier][stay]
            ticket, stay.ticket = stay.ticket, None
            self._tiers[stay.tier].drop(ticket)
        self._changed.notify_all()
