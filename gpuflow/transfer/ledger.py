"""What is published, for how many readers and how long: bookkeeping with the clock as an argument. Not thread-safe."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal, Protocol

REMEMBERED = 4096
End = Literal["acknowledged", "expired", "cancelled"]
Answer = Literal["counted", "last", "duplicate", "late", "unknown"]


class Offered(Protocol):
    """What is on offer: a lease, or a file."""

    def unpublish(self, *, revoke: bool) -> None: ...


@dataclass(slots=True, eq=False)
class Publication:
    """A block or file on offer. ``reads_left`` is ``None`` for any number of readers."""

    token: bytes
    offered: Offered
    generation: int
    slot: int
    reads_left: int | None
    ttl_seconds: float
    expires: float
    last_expires: float
    nonces: set[bytes] = field(default_factory=set)  # of the acknowledgements that were counted


class Ledger:
    """The open publications by token, and how the last few thousand ended."""

    def __init__(self) -> None:
        self.open: dict[bytes, Publication] = {}
        self._by_expiry: list[tuple[float, bytes]] = []
        self._ended: OrderedDict[bytes, End] = OrderedDict()

    def add(self, publication: Publication) -> None:
        """Open a publication."""
        self.open[publication.token] = publication
        heapq.heappush(self._by_expiry, (publication.expires, publication.token))

    def acknowledge(
        self, token: bytes, *, slot: int | None = None, generation: int | None = None, nonce: bytes = b""
    ) -> Answer:
        """A reader says that it is done: ``"last"`` if no other is expected; the caller then ends the publication.

        ``slot`` and ``generation`` must be the publication's where the message names them. A ``nonce`` that was
        counted before is a duplicate; without one each message counts.
        """
        publication = self.open.get(token)
        if publication is None:
            ended = self._ended.get(token)
            return "unknown" if ended is None else "duplicate" if ended == "acknowledged" else "late"
        if slot not in (None, publication.slot) or generation not in (None, publication.generation):
            return "unknown"
        if nonce and nonce in publication.nonces:
            return "duplicate"
        if publication.reads_left is None:
            return "counted"
        publication.nonces.add(nonce)
        publication.reads_left -= 1
        return "last" if publication.reads_left == 0 else "counted"

    def renew(self, token: bytes, ttl_seconds: float | None, now: float) -> bool:
        """Give a publication ``ttl_seconds`` from now (its own by default); never less than it has, never more than
        its last moment. False if it is not open."""
        publication = self.open.get(token)
        if publication is None:
            return False
        wanted = min(now + (publication.ttl_seconds if ttl_seconds is None else ttl_seconds), publication.last_expires)
        if wanted > publication.expires:
            publication.expires = wanted
            heapq.heappush(self._by_expiry, (wanted, token))
        return True

    def end(self, token: bytes, why: End) -> Publication | None:
        """Close a publication and remember why; ``None`` if it was not open."""
        publication = self.open.pop(token, None)
        if publication is not None:
            self._ended[token] = why
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        return publication

    def expired(self, now: float) -> list[bytes]:
        """Tokens of the open publications whose time is over."""
        late = []
        while self._by_expiry and self._by_expiry[0][0] < now:
            expires, token = heapq.heappop(self._by_expiry)
            publication = self.open.get(token)
            if publication is not None and publication.expires == expires:  # not renewed since
                late.append(token)
        return late
