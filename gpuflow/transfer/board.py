"""The open publications of one publisher, and the thread that ends them: read by all, withdrawn, or out of time."""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from gpuflow.errors import Closed, StaleDescriptor
from gpuflow.forks import disown_in_children
from gpuflow.memory import Lease
from gpuflow.observe import log
from gpuflow.transfer.descriptor import Descriptor
from gpuflow.transfer.dynamo import parse_notification_key
from gpuflow.transfer.ledger import End, Ledger, Offered, Publication
from gpuflow.transfer.statistics import PublisherStatistics

FIRST_POLL_SECONDS = 0.001
LAST_POLL_SECONDS = 0.01
SLEEP_SECONDS = 1.0
DOZE_SECONDS = 10.0  # an abandoned publisher tells nobody
GRACE_SECONDS = 0.25  # a reader that began in time may end
MAX_TTL_SECONDS = 300.0
TOKEN_BYTES = 16
NONCE_BYTES = 8
RENEW = b"+"  # before a token: the reader needs the block for longer


def acknowledgement(token: bytes) -> bytes:
    """What a reader sends when it is done: the token, and eight bytes that tell this read from any other, so that an
    acknowledgement that comes twice counts once."""
    return token + os.urandom(NONCE_BYTES)


class Board:
    """Thread-safe. ``collect``, a method of the publisher, gives the messages that came since it was last asked; it is
    asked while anything is open, every millisecond at first and every ten when none come. The thread that asks does not
    keep the publisher alive."""

    def __init__(self, collect: Callable[[], Iterable[bytes]]) -> None:
        self._collect = weakref.WeakMethod(collect)
        self._ledger = Ledger()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)  # for those that drain
        self._offered = threading.Condition(self._lock)  # for the poller, when it sleeps
        self._asleep = False
        self._ending = 0  # publications that are closed, and whose blocks are not yet given back
        self._closed = False
        self._foreign = False  # true in a forked child
        disown_in_children(self)
        self._poller = threading.Thread(target=self._poll, name="gpuflow-publisher", daemon=True)
        self._poller.start()

    def check(self, reads: int | None, ttl_seconds: float) -> None:
        """Raise ``ValueError`` or ``Closed`` if such a publication cannot be offered."""
        if reads is not None and not (isinstance(reads, int) and reads >= 1):
            raise ValueError(f"reads is 1 or more, or None for any number; got {reads!r}")
        _check_ttl(ttl_seconds)
        self._require_own()
        if self._closed:
            raise Closed("the publisher is closed")

    def offer(self, offered: Offered, slot: int, generation: int, reads: int | None, ttl_seconds: float) -> bytes:
        """Open a publication; returns its token. What was offered is unpublished when it ends, or at once when the
        board is closed.

        Raises:
            Closed: the publisher was closed.
        """
        token, now = secrets.token_bytes(TOKEN_BYTES), time.monotonic() + GRACE_SECONDS
        publication = Publication(
            token, offered, generation, slot, reads, ttl_seconds, now + ttl_seconds, now + MAX_TTL_SECONDS
        )
        with self._lock:
            closed = self._closed
            if not closed:
                self._ledger.add(publication)
                self._counts["published"] += 1
                if self._asleep:
                    self._offered.notify_all()
        if closed:
            offered.unpublish(revoke=True)
            raise Closed("the publisher is closed")
        return token

    def hear(self, message: bytes) -> None:
        """An acknowledgement, or a wish for more time, from any reader over any way."""
        if message[:1] == RENEW and len(message) == 1 + TOKEN_BYTES:
            self.renew(message[1:], None)
            return
        key = parse_notification_key(message)
        slot, generation, token = key if key is not None else (None, None, message)
        token, nonce = token[:TOKEN_BYTES], token[TOKEN_BYTES:]
        with self._lock:
            if len(nonce) in (0, NONCE_BYTES):
                answer = self._ledger.acknowledge(token, slot=slot, generation=generation, nonce=nonce)
            else:
                answer = "unknown"
            self._counts[answer] += 1
        if answer == "last":
            self.end(token, "acknowledged")

    def renew(self, token: bytes, ttl_seconds: float | None) -> bool:
        """Prolong a publication; false if it is not open."""
        if ttl_seconds is not None:
            _check_ttl(ttl_seconds)
        self._require_own()
        with self._lock:
            renewed = self._ledger.renew(token, ttl_seconds, time.monotonic() + GRACE_SECONDS)
            self._counts["renewed" if renewed else "unknown"] += 1
            return renewed

    def lend(self, descriptor: Descriptor) -> Lease:
        """The block of an open publication, retained.

        Raises:
            StaleDescriptor: it is not open.
        """
        with self._lock:
            publication = self._ledger.open.get(descriptor.token)
            if (
                publication is None
                or publication.generation != descriptor.generation
                or not isinstance(publication.offered, Lease)
            ):
                raise StaleDescriptor("the publication was read, withdrawn, or its time is over")
            return publication.offered.retain()

    def offers(self) -> list[tuple[bytes, int | None, Any]]:
        """Token, expected reads and what is offered, of everything open."""
        with self._lock:
            return [(token, entry.reads_left, entry.offered) for token, entry in self._ledger.open.items()]

    def end(self, token: bytes, why: End) -> bool:
        """Close a publication; false if it was not open. Unless it was read by all, it is revoked: a reader that comes
        later finds it stale even while others hold the block."""
        self._require_own()
        with self._lock:
            publication = self._ledger.end(token, why)
            if publication is None:
                return False
            self._counts[why] += 1
            self._ending += 1
        try:
            publication.offered.unpublish(revoke=why != "acknowledged")
        finally:
            with self._lock:
                self._ending -= 1
                self._ended.notify_all()
        return True

    def drain(self, timeout_seconds: float) -> bool:
        """Wait until nothing is open and every block was given back; false if the time was over first."""
        if not 0 <= timeout_seconds < threading.TIMEOUT_MAX:
            raise ValueError(f"timeout_seconds is 0 or more, and finite; got {timeout_seconds!r}")
        self._require_own()
        with self._lock:
            return self._ended.wait_for(lambda: not (self._ledger.open or self._ending), timeout_seconds)

    def statistics(self, *, shm_readers: int = 0) -> PublisherStatistics:
        """A snapshot."""
        with self._lock:
            counts = self._counts
            return PublisherStatistics(
                open=len(self._ledger.open),
                published=counts["published"],
                acknowledged=counts["acknowledged"],
                expired=counts["expired"],
                cancelled=counts["cancelled"],
                renewed=counts["renewed"],
                duplicate_acknowledgements=counts["duplicate"],
                late_acknowledgements=counts["late"],
                unknown_messages=counts["unknown"],
                shm_readers=shm_readers,
            )

    def close(self) -> bool:
        """Withdraw everything and stop; false if that was done already, or belongs to the parent of a fork."""
        if self._foreign:
            return False
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            self._offered.notify_all()
        self._poller.join()
        self._withdraw()
        return True

    def _withdraw(self) -> None:
        for token, _, _ in self.offers():
            self.end(token, "cancelled")

    def abandon(self) -> None:
        """Have the thread end, as the garbage collector may: without a lock, and without waiting."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether it was closed, here or in the parent of a fork."""
        return self._closed or self._foreign

    def disown(self) -> None:
        """In a forked child, which has no polling thread, and nobody who gives the lock back."""
        self._lock = threading.Lock()
        self._ended, self._offered = threading.Condition(self._lock), threading.Condition(self._lock)
        self._foreign = True

    def _require_own(self) -> None:
        if self._foreign:
            raise Closed("this publisher was made before a fork and belongs to the parent: make one in this process")

    def _poll(self) -> None:
        pause, quiet_since, published = FIRST_POLL_SECONDS, time.monotonic(), 0
        while self._wait(pause, asleep=time.monotonic() - quiet_since > SLEEP_SECONDS):
            heard = self._hear_all()
            with self._lock:
                busy = heard or self._counts["published"] > published
                published = self._counts["published"]
                late = self._ledger.expired(time.monotonic())
                if busy or self._ledger.open:
                    quiet_since = time.monotonic()
            pause = FIRST_POLL_SECONDS if busy else min(1.5 * pause, LAST_POLL_SECONDS)
            for token in late:
                self.end(token, "expired")
        if self._collect() is None:  # the publisher was forgotten: nobody else withdraws what it offers
            self._withdraw()

    def _wait(self, pause: float, *, asleep: bool) -> bool:
        """Between polls; without an end when nothing has been open for a second, because each waking of this thread
        costs those that publish some 50 us."""
        with self._lock:
            self._asleep = asleep
            while asleep and not self._ledger.open and not self._closed:
                self._offered.wait(DOZE_SECONDS)
            self._asleep = False
            if not self._closed:
                self._offered.wait(pause)
            return not self._closed

    def _hear_all(self) -> bool:
        try:
            collect = self._collect()
            messages = list(collect()) if collect is not None else []
            del collect
        except Exception:  # noqa: BLE001 - a vendor's failure must not end the thread that frees blocks
            log.exception("acknowledgements could not be collected")
            return False
        for message in messages:
            self.hear(message)
        return bool(messages)


def _check_ttl(ttl_seconds: float) -> None:
    if not 0 < ttl_seconds <= MAX_TTL_SECONDS:
        raise ValueError(f"ttl_seconds lies in (0, {MAX_TTL_SECONDS:g}]; got {ttl_seconds!r}")
