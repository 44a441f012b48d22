"""Hands out descriptors of media that lie as files in a directory shared with the readers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any, Self

from gpuflow.media import Media
from gpuflow.transfer.board import Board
from gpuflow.transfer.descriptor import MAX_LINKS, Descriptor, Peer, write_metadata
from gpuflow.transfer.files import Directory, StoredFile
from gpuflow.transfer.statistics import PublisherStatistics


class FilePublisher:
    """``Publisher`` where no memory can be shared: media of any slab are written to ``directory``, and a reader that was
    given the same directory reads them there. A file is removed when it was read ``reads`` times or its time is over.

    Raises:
        OSError: the directory cannot be made or opened.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Directory(directory)
        self._board = Board(collect=self._taken)
        self.peer = Peer(f"gpuflow.files/{os.getpid()}")

    def publish(self, media: Media, *, reads: int | None = 1, ttl_seconds: float = 5.0) -> Descriptor:
        """Write a medium for ``reads`` readers (at most 64; ``None``: any number), for ``ttl_seconds`` (at most 300).

        Raises:
            ValueError: an argument is out of range.
            LeaseExpired: the medium was released.
            Closed: the publisher was closed.
            OSError: the directory is full or cannot be written to.
        """
        self._board.check(reads, ttl_seconds)
        if reads is not None and reads > MAX_LINKS:
            raise ValueError(f"at most {MAX_LINKS} readers of a file, or None for any number; got {reads}")
        media.lease.synchronize()
        stored = self._directory.write(media, links=reads or 0)
        token = self._board.offer(stored, 0, 0, reads, ttl_seconds)
        return Descriptor(
            peer=self.peer,
            mem_type="DRAM",
            device_id=0,
            address=0,
            nbytes=media.lease.nbytes,
            table_address=0,
            slot=0,
            generation=0,
            token=token,
            ttl_ms=int(ttl_seconds * 1000),
            kind=media.kind,
            tensors=tuple((spec.name, spec.dtype, spec.shape, spec.offset) for spec in media.specs),
            metadata=write_metadata(media.metadata),
            backend=media.backend,
            fallback=media.fallback,
            content_hash=media.content_hash,
            file=stored.name,
            links=reads or 0,
            checksum=stored.checksum,
        )

    async def apublish(self, media: Media, *, reads: int | None = 1, ttl_seconds: float = 5.0) -> Descriptor:
        """``publish`` off the event loop."""
        return await asyncio.to_thread(self.publish, media, reads=reads, ttl_seconds=ttl_seconds)

    def renew(self, descriptor: Descriptor, *, ttl_seconds: float | None = None) -> bool:
        """As ``Publisher.renew``."""
        return self._board.renew(descriptor.token, ttl_seconds)

    def cancel(self, descriptor: Descriptor) -> bool:
        """Remove a file; true if it was still on offer."""
        return self._board.end(descriptor.token, "cancelled")

    def drain(self, *, timeout_seconds: float) -> bool:
        """Wait until every file was read, withdrawn or expired; false if the time was over first."""
        return self._board.drain(timeout_seconds)

    async def adrain(self, *, timeout_seconds: float) -> bool:
        """``drain`` off the event loop."""
        return await asyncio.to_thread(self.drain, timeout_seconds=timeout_seconds)

    def statistics(self) -> PublisherStatistics:
        """A snapshot."""
        return self._board.statistics()

    def close(self) -> None:
        """Remove every file that is left, and stop; harmless when repeated."""
        if self._board.close():
            self._directory.close()

    async def aclose(self) -> None:
        """``close`` off the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _taken(self) -> Iterable[bytes]:
        """A token for every name that a reader took away."""
        offers: list[tuple[bytes, int | None, Any]] = self._board.offers()
        for token, reads_left, stored in offers:
            names_left = stored.reads_left if isinstance(stored, StoredFile) else None
            if reads_left is not None and names_left is not None:
                yield from [token] * (reads_left - names_left)
