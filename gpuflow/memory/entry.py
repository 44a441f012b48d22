"""A medium that is kept: a handle that outlives its place in the slab."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gpuflow.media import Media
from gpuflow.memory.cascade import Stay
from gpuflow.memory.lease import Lease

if TYPE_CHECKING:
    from gpuflow.memory.tiered import TieredMemory


class Entry:
    """A kept medium. Its bytes lie in the slab or in a lower tier; ``pin`` brings them back and holds them there."""

    __slots__ = (
        "__weakref__",
        "_lease",
        "_media",
        "_memory",
        "_restoring",
        "_stay",
        "dropped",
        "moving",
        "nbytes",
        "taken_bytes",
    )

    def __init__(self, memory: TieredMemory, media: Media, lease: Lease) -> None:
        self.nbytes = lease.nbytes
        self.taken_bytes = lease.slab.taken_bytes(lease.nbytes)
        self.dropped = False
        self.moving = False
        self._memory = memory
        self._lease: Lease | None = lease
        self._stay: Stay | None = None
        self._restoring = False
        self._media = (
            type(media), media.specs, media.metadata, media.backend, media.fallback, media.stages, media.content_hash,
        )  # fmt: skip

    @property
    def where(self) -> str:
        """``"slab"``, the name of a tier, or ``"dropped"``."""
        if self.dropped:
            return "dropped"
        stay = self._stay
        return "slab" if stay is None else stay.tier_name

    @property
    def in_use(self) -> bool:
        """Whether somebody pins, publishes or otherwise refers to its block."""
        return self._lease is not None and self._lease.references > 1 and not self.moving

    @property
    def evictable(self) -> bool:
        """Whether it may be spilled now: it lies in the slab, and is not in use."""
        return self._lease is not None and self._lease.references == 1 and not self.moving

    def pin(self, *, timeout_seconds: float = 5.0) -> Media:
        """The medium, in the slab: release it. Meanwhile it is not spilled, nor while it is published.

        Raises:
            LeaseExpired: it was dropped.
            SpillError: it could not be restored; it is dropped.
            SlabExhausted: no room in the slab in time.
            DeadlineExceeded: another thread restores it, and did not end in time.
            Closed: the memory was closed.
        """
        return self._memory.pin(self, timeout_seconds)

    async def apin(self, *, timeout_seconds: float = 5.0) -> Media:
        """``pin`` off the event loop. When it is cancelled, what comes is released."""
        media = self._memory.pin_resident(self)
        if media is not None:
            return media
        pinning = asyncio.ensure_future(asyncio.to_thread(self.pin, timeout_seconds=timeout_seconds))
        try:
            return await asyncio.shield(pinning)
        except asyncio.CancelledError:
            pinning.add_done_callback(_release_result)
            raise

    def drop(self) -> None:
        """Forget it; harmless when repeated. Who has pinned it keeps it until they release it."""
        self._memory.drop(self)

    def over(self, lease: Lease) -> Media:
        kind, specs, metadata, backend, fallback, stages, content_hash = self._media
        return kind(
            lease, specs, metadata, backend=backend, fallback=fallback, stages=stages, content_hash=content_hash
        )


def _release_result(pinning: asyncio.Future[Media]) -> None:
    if not pinning.cancelled() and pinning.exception() is None:
        pinning.result().release()
