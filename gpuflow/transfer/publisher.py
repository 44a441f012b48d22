"""Hands out descriptors of leased media, and frees the blocks when the readers say so."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Self

from gpuflow.errors import Closed
from gpuflow.media import Media
from gpuflow.memory import Lease, Slab
from gpuflow.memory.slab import SLOT_BYTES
from gpuflow.transfer.descriptor import Descriptor, write_metadata
from gpuflow.transfer.dynamo import parse_notification_key
from gpuflow.transfer.nixl import Agent, Region

POLL_SECONDS = 0.002
MAX_TTL_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """Counts since the publisher was made; ``open`` is how many publications are held now."""

    open: int
    published: int
    acknowledged: int
    expired: int
    cancelled: int
    unknown_messages: int


@dataclass(frozen=True, slots=True)
class _Publication:
    lease: Lease
    reads_left: int
    expires: float


class Publisher:
    """One NIXL agent over one slab, registered once. Publishing keeps a block alive until it was read ``reads`` times
    or its time is over, whatever happens to the medium that it came from. Thread-safe.

    Peers must be trusted: who holds a descriptor can read this process's registered memory.

    Raises:
        BackendUnavailable: NIXL is not installed or does not start.
        SlabClosed: the slab was closed.
    """

    def __init__(self, slab: Slab) -> None:
        self.slab = slab
        slab.hold()
        try:
            self._agent = Agent("publisher")
        except BaseException:
            slab.unhold()
            raise
        device_id = 0 if slab.device == "cpu" else int(slab.device.partition(":")[2])
        self._block_region = Region(slab.backing.mem_type, slab.address, slab.nbytes, device_id)
        self._agent.register(self._block_region)
        self._agent.register(Region("DRAM", slab.table.address, slab.table.nbytes))
        self._metadata = self._agent.metadata()
        self._open: dict[bytes, _Publication] = {}
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closed = False
        self._poller = threading.Thread(target=self._poll, name="gpuflow-publisher", daemon=True)
        self._poller.start()

    def publish(self, media: Media, *, reads: int = 1, ttl_seconds: float = 5.0) -> Descriptor:
        """Offer a medium to ``reads`` readers for ``ttl_seconds`` (at most 300).

        Raises:
            ValueError: the medium lies in another slab or is not sealed, or an argument is out of range.
            LeaseExpired: the medium was released.
            Closed: the publisher was closed.
        """
        if not isinstance(reads, int) or reads < 1 or not 0 < ttl_seconds <= MAX_TTL_SECONDS:
            raise ValueError(
                f"reads is 1 or more and ttl_seconds in (0, {MAX_TTL_SECONDS:g}]; got {reads}, {ttl_seconds}"
            )
        lease: Lease = media.lease
        if lease.slab is not self.slab:
            raise ValueError("the medium lies in another slab than the publisher's")
        if not lease.sealed:
            raise ValueError("the medium is still being written: only a sealed block can be published")
        lease.retain()
        token = secrets.token_bytes(16)
        with self._changed:
            if self._closed:
                lease.release()
                raise Closed("the publisher is closed")
            self._open[token] = _Publication(lease, reads, time.monotonic() + ttl_seconds)
            self._counts["published"] += 1
            self._changed.notify_all()
        return self._describe(media, token, ttl_seconds)

    def cancel(self, descriptor: Descriptor) -> bool:
        """Withdraw a publication; true if it was still open. A reader that comes later finds it stale."""
        return self._drop(descriptor.token, "cancelled")

    def drain(self, *, timeout_seconds: float) -> bool:
        """Wait until every publication was read, withdrawn or expired; false if the time was over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout_seconds)

    def statistics(self) -> PublisherStatistics:
        """A snapshot."""
        with self._changed:
            counts = self._counts
            return PublisherStatistics(
                len(self._open), counts["published"], counts["acknowledged"], counts["expired"],
                counts["cancelled"], counts["unknown"],
            )  # fmt: skip

    def close(self) -> None:
        """Withdraw everything and stop; harmless when repeated."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._poller.join()
        for token in list(self._open):
            self._drop(token, "cancelled")
        self._agent.close()
        self.slab.unhold()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _describe(self, media: Media, token: bytes, ttl_seconds: float) -> Descriptor:
        lease: Lease = media.lease
        return Descriptor(
            agent=self._agent.name,
            agent_metadata=self._metadata,
            mem_type="DRAM" if self._block_region.mem_type == "DRAM" else "VRAM",
            device_id=self._block_region.device_id,
            address=lease.address,
            nbytes=lease.nbytes,
            table_address=self.slab.table.address + lease.slot * SLOT_BYTES,
            slot=lease.slot,
            generation=lease.generation,
            token=token,
            ttl_ms=int(ttl_seconds * 1000),
            kind=media.kind,
            tensors=tuple((spec.name, spec.dtype, spec.shape, spec.offset) for spec in media.specs),
            metadata=write_metadata(media.metadata),
            backend=media.backend,
            fallback=media.fallback,
            content_hash=media.content_hash,
        )

    def _poll(self) -> None:
        while True:
            with self._changed:
                while not self._open and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._changed.wait(POLL_SECONDS)
            for message in self._agent.messages():
                self._acknowledge(message)
            self._expire()

    def _acknowledge(self, message: bytes) -> None:
        """Count one read: the message is the token, or Dynamo's key of this very slot and generation."""
        key = parse_notification_key(message)
        token = message if key is None else key[2]
        with self._changed:
            publication = self._open.get(token)
            if publication is None or (key and key[:2] != (publication.lease.slot, publication.lease.generation)):
                self._counts["unknown"] += 1
                return
            if publication.reads_left > 1:
                self._open[token] = replace(publication, reads_left=publication.reads_left - 1)
                return
        self._drop(token, "acknowledged")

    def _expire(self) -> None:
        now = time.monotonic()
        with self._changed:
            late = [token for token, publication in self._open.items() if publication.expires < now]
        for token in late:
            self._drop(token, "expired")

    def _drop(self, token: bytes, why: str) -> bool:
        with self._changed:
            publication = self._open.pop(token, None)
            if publication is None:
                return False
            self._counts[why] += 1
        publication.lease.release()
        with self._changed:
            self._changed.notify_all()
        return True
