"""Hands out descriptors of media that lie as files in a directory shared with the readers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from gpuflow.media import Media
from gpuflow.transfer.board import Board
from gpuflow.transfer.descriptor import MAX_LINKS, Descriptor, Peer
from gpuflow.transfer.files import Directory, StoredFile
from gpuflow.transfer.offering import Offering, lease_of


class FilePublisher(Offering):
    """``Publisher`` where no memory can be shared: media of any slab are written to ``directory``, and a reader that was
    given the same directory reads them there. A file is removed when it was read ``reads`` times or its time is over; what
    a publisher that was killed has left, by the next one that starts ten minutes later.

    Raises:
        OSError: the directory cannot be made or opened.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Directory(directory)
        self._directory.sweep()
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
        lease_of(media).synchronize()
        stored = self._directory.write(media, links=reads or 0)
        token = self._board.offer(stored, 0, 0, reads, ttl_seconds)
        return self._describe(media, token, ttl_seconds, file=stored.name, links=reads or 0, checksum=stored.checksum)

    async def apublish(self, media: Media, *, reads: int | None = 1, ttl_seconds: float = 5.0) -> Descriptor:
        """``publish`` off the event loop."""
        return await asyncio.to_thread(self.publish, media, reads=reads, ttl_seconds=ttl_seconds)

    def close(self) -> None:
        """Remove every file that is left, and stop; harmless when repeated."""
        if self._board.close():
            self._directory.close()

    def _taken(self) -> Iterable[bytes]:
        """A token for every name that a reader took away."""
        offers: list[tuple[bytes, int | None, Any]] = self._board.offers()
        for token, reads_left, stored in offers:
            names_left = stored.reads_left if isinstance(stored, StoredFile) else None
            if reads_left is not None and names_left is not None:
                yield from [token] * (reads_left - names_left)
