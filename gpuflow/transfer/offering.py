"""What every publisher can do with what it has offered."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any, Self

from gpuflow.media import Media
from gpuflow.memory import Lease
from gpuflow.observe import log
from gpuflow.transfer.board import Board
from gpuflow.transfer.descriptor import Descriptor, Peer, write_metadata
from gpuflow.transfer.statistics import PublisherStatistics


class Offering:
    """Publications by their descriptors; ``Publisher`` offers blocks, ``FilePublisher`` files."""

    _board: Board
    peer: Peer

    def renew(self, descriptor: Descriptor, *, ttl_seconds: float | None = None) -> bool:
        """Give a publication ``ttl_seconds`` from now, by default as many as at first; at most 300 s after it was
        published, and never less than it has. False if it is not open any more."""
        return self._board.renew(_token(descriptor), ttl_seconds)

    def cancel(self, descriptor: Descriptor) -> bool:
        """Withdraw a publication; true if it was still open. A reader that comes later finds it stale, unless the same
        medium is on offer under another descriptor too: what readers compare is the block's generation."""
        return self._board.end(_token(descriptor), "cancelled")

    def drain(self, *, timeout_seconds: float) -> bool:
        """Wait until every publication was read, withdrawn or expired; false if the time was over first."""
        return self._board.drain(timeout_seconds)

    async def adrain(self, *, timeout_seconds: float) -> bool:
        """``drain`` off the event loop."""
        return await asyncio.to_thread(self.drain, timeout_seconds=timeout_seconds)

    def statistics(self) -> PublisherStatistics:
        """A snapshot."""
        return self._board.statistics()

    def close(self) -> None:
        """Withdraw everything and stop; harmless when repeated."""
        self._board.close()

    async def aclose(self) -> None:
        """``close`` off the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        board = getattr(self, "_board", None)
        if board is not None and not board.closed:
            self._abandon()
            text = f"a {type(self).__name__} was never closed: use 'with', or call close()"
            log.warning(text)
            warnings.warn(text, ResourceWarning, stacklevel=2)

    def _abandon(self) -> None:
        """Have the threads end; called by the garbage collector."""
        self._board.abandon()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} has threads of this process and cannot be pickled: send publisher.peer.to_bytes()"
        )

    def _describe(self, media: Media, token: bytes, ttl_seconds: float, **place: Any) -> Descriptor:
        """The descriptor of a medium that lies at ``place``, which names the fields of ``Descriptor`` that differ. When
        there is none, the publication is withdrawn."""
        nowhere = {"mem_type": "DRAM", "device_id": 0, "address": 0, "table_address": 0, "slot": 0, "generation": 0}
        try:
            return Descriptor(
                **{**nowhere, **place},
                peer=self.peer,
                nbytes=media.lease.nbytes,
                token=token,
                ttl_ms=int(ttl_seconds * 1000),
                kind=media.kind,
                tensors=tuple((spec.name, spec.dtype, spec.shape, spec.offset) for spec in media.specs),
                metadata=write_metadata(media.metadata),
                backend=media.backend,
                fallback=media.fallback,
                content_hash=media.content_hash,
            )
        except BaseException:
            self._board.end(token, "cancelled")
            raise


def lease_of(media: Media) -> Lease:
    """The block of a medium; ``TypeError`` for anything else, ``ValueError`` for one that is only looked at."""
    if not isinstance(media, Media):
        raise TypeError(f"a medium is published: Image, Frames, Waveform or Features; got {type(media).__name__}")
    if not isinstance(media.lease, Lease):
        raise ValueError("the medium is only mapped, and belongs to another process: read() it instead of map()")
    return media.lease


def _token(descriptor: Descriptor) -> bytes:
    if not isinstance(descriptor, Descriptor):
        raise TypeError(f"a Descriptor that publish() gave is needed; got {type(descriptor).__name__}")
    return descriptor.token
