"""Packets from a worker, which demuxes them, to a decoder of this process: the two ends.

Their bytes go through a block of the shared slab and are copied out of it before anybody reads them, because a worker
could change them meanwhile: 0.26 ms for 1 MiB, against 0.76 to 1.05 within messages (two shared cores).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.base import Deadline
from gpuflow.codecs.video.plan import PacketRow
from gpuflow.codecs.video.stream import max_payload_bytes
from gpuflow.isolation import wire
from gpuflow.isolation.plausible import check_pieces, check_table

BLOCK_BYTES = 1 << 20
_MAX_PIECES = 4_096


class Handing:
    """The worker's end: the packets that were asked for, a block at a time."""

    def __init__(self, payloads: Iterator[tuple[int, bytes]], block: NDArray[np.uint8], deadline: Deadline) -> None:
        self._payloads = payloads
        self._block = block
        self._deadline = deadline
        self._rest: tuple[int, memoryview] | None = None  # of a packet that did not fit

    def fill(self) -> wire.Payloads:
        """Write to the block until it is full, or nothing is left."""
        pieces: list[wire.Piece] = []
        used = 0
        while used < len(self._block) and len(pieces) < _MAX_PIECES:
            if (piece := self._next()) is None:
                return wire.Payloads(tuple(pieces), True)
            position, data = piece
            part = data[: len(self._block) - used]
            self._block[used : used + len(part)] = part
            used += len(part)
            self._rest = (position, data[len(part) :]) if len(part) < len(data) else None
            pieces.append(wire.Piece(position, len(part), self._rest is None))
        return wire.Payloads(tuple(pieces), False)

    def _next(self) -> tuple[int, memoryview] | None:
        if self._rest is not None:
            return self._rest
        self._deadline.check()
        for position, payload in self._payloads:
            return position, memoryview(payload)
        return None


class HandedStream:
    """``ElementaryStream`` of packets that a worker demuxes. ``ask`` sends an order and returns its answer; ``block``
    is the part of the slab at ``offset`` that the worker writes to."""

    def __init__(
        self, ask: Callable[[Any, type[Any]], Any], block: NDArray[np.uint8], offset: int, file_bytes: int
    ) -> None:
        self._ask = ask
        self._block = block
        self._offset = offset
        self._file_bytes = file_bytes

    def table(self, first: int, last: int) -> Sequence[PacketRow]:
        """See ``ElementaryStream``."""
        found: wire.Table = self._ask(wire.Describe(first, last), wire.Table)
        check_table(found, last - first + 1)
        return found.rows

    def payloads(self, first: int, last: int, skipped: Sequence[int] = ()) -> Iterator[tuple[int, bytes]]:
        """See ``ElementaryStream``."""
        room = max_payload_bytes(self._file_bytes, last - first + 1)
        order: Any = wire.Packets(first, last, tuple(skipped), self._offset, self._block.size)
        parts: list[bytes] = []
        ended = False
        while not ended:
            found: wire.Payloads = self._ask(order, wire.Payloads)
            used = check_pieces(found, (first, last), min(room, self._block.size), begun=bool(parts))
            room, ended, order = room - used, found.ended, wire.More()
            copied, at = self._block[:used].tobytes(), 0
            for piece in found.pieces:
                first = piece.position
                parts.append(copied[at : at + piece.nbytes])
                at += piece.nbytes
                if piece.whole:
                    yield first, b"".join(parts)
                    parts.clear()
