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
from gpuflow.memory.slab import Slab
from gpuflow.memory.tiers import Ticket, Tier, TierFull
from gpuflow.observe import log

FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 60.0
CLOSE_SECONDS = 10.0
Place = tuple[int, Ticket | None]  # a tier's number, and the block there
NOWHERE: Place = (-1, None)


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
        ``stay.gone``: there is none that could."""
        place = self._place(lease, first=0)
        if place is None:
            return None
        number, ticket = place
        if ticket is None:
            return Stay(owner, number, "dropped", None, gone=True)
        stay = Stay(owner, number, self._tiers[number].name, ticket)
        with self._changed:
            self._stays[number][stay] = None
        return stay

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

    def disown(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._changed = threading.Condition()

    def _place(self, lease: Lease, *, first: int) -> Place | None:
        failed = False
        for number in range(first, len(self._tiers)):
            if self._tiers[number].takes(lease):
                ticket = self._put_into(number, lease)
                if ticket is not None:
                    return number, ticket
                failed = True
        return None if failed else NOWHERE

    def _put_into(self, number: int, lease: Lease) -> Ticket | None:
        """Copy a block into one tier, where room is made for it; ``None`` if the tier fails or rests, or nothing in it
        can be moved now."""
        if time.monotonic() < self._rests_until[number]:
            return None
        try:
            while True:
                try:
                    ticket = self._tiers[number].put(lease)
                except TierFull:
                    if not self._move_down(number):
                        return None
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
        """Make room in a tier: what came first goes to the next one that takes it, or is dropped where there is none.
        False if nothing can be moved now: all of it is being read, or the tiers below fail."""
        with self._changed:
            stay = next((stay for stay in self._stays[number] if not stay.readers), None)
            if stay is None or stay.ticket is None:
                return False
            stay.moving = True
            ticket = stay.ticket
        place: Place | None = None
        try:
            place = self._place_below(number, ticket)
        finally:
            with self._changed:
                stay.moving = False
                if place is not None:
                    self._settle_in(stay, place)
                self._settle(stay)
        if place is not None:
            self._tiers[number].drop(ticket)
        return place is not None or stay.ticket is None

    def _place_below(self, number: int, ticket: Ticket) -> Place | None:
        """Copy a block from one tier to the next that takes it; from a file through memory."""
        tier = self._tiers[number]
        lease = tier.lease_of(ticket)
        if lease is not None:
            return self._place(lease, first=number + 1)
        if all(ticket.nbytes > below.capacity_bytes for below in self._tiers[number + 1 :]):
            return NOWHERE
        try:
            with Slab(ticket.nbytes, pin=False) as passage, passage.allocate(ticket.nbytes) as copy:
                tier.get(ticket, copy)
                copy.seal()
                return self._place(copy, first=number + 1)
        except SpillError:
            log.warning("a block in the %s tier could not be read, and is dropped", tier.name, exc_info=True)
            return NOWHERE

    def _settle_in(self, stay: Stay, place: Place) -> None:
        """A block was moved, or dropped."""
        del self._stays[stay.tier][stay]
        stay.tier, stay.ticket = place
        if stay.ticket is None:
            stay.gone = stay.owner.dropped = True
            self.drops += 1
        else:
            stay.tier_name = self._tiers[stay.tier].name
            self._stays[stay.tier][stay] = None

    def _settle(self, stay: Stay) -> None:
        """Drop a doomed block once nobody reads or moves it."""
        if stay.doomed and not stay.moving and not stay.readers and stay.ticket is not None:
            del self._stays[stay.tier][stay]
            ticket, stay.ticket = stay.ticket, None
            self._tiers[stay.tier].drop(ticket)
        self._changed.notify_all()
