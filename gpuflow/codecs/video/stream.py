"""Packets in the form that a GPU's parser reads, wherever they were demuxed: here, or in a worker process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from gpuflow.codecs.video.plan import PacketRow, Segment

MORE_BYTES = 1 << 20
_HEADER_BYTES = 16 << 10  # a packet's start codes, and the parameter sets before it: 3 KiB of x265's at most


class ElementaryStream(Protocol):
    """A video stream without its container."""

    def table(self, first: int, last: int) -> Sequence[PacketRow]:
        """What the container says about packets ``first`` .. ``last``."""
        ...

    def payloads(self, first: int, last: int, skipped: Sequence[int] = ()) -> Iterator[tuple[int, bytes]]:
        """``(position, bytes)`` of these packets without those ``skipped``: H.264 and HEVC with start codes, headers
        where decoding begins."""
        ...


class Wanted:
    """Which displayed frame a picture is, asked once for each as they come out. A decoder that knows pictures by the
    position of their packet also gives those that an edit list cuts away, which are not counted."""

    def __init__(self, stream: ElementaryStream, segment: Segment) -> None:
        self._segment = segment
        self._positions = targets_by_position(stream, segment)
        self._hidden: set[int] = set()
        self._number = 0
        if segment.counted:
            rows = enumerate(stream.table(segment.first, segment.last), segment.first)
            self._hidden = {position for position, row in rows if not row.shown}

    def index(self, position: int) -> int | None:
        """The displayed frame of the next picture, that of the packet at ``position``; ``None`` if it is not wanted."""
        if not self._segment.counted:
            return self._positions.get(position)
        if position in self._hidden:
            return None
        self._number += 1
        return self._segment.targets.get(self._number - 1)


def targets_by_position(stream: ElementaryStream, segment: Segment) -> dict[int, int]:
    """Wanted pictures by the packet that holds them; the plan names them by time, or counts them: then nothing."""
    if segment.counted:
        return {}
    rows = enumerate(stream.table(segment.first, segment.last), segment.first)
    return {
        position: segment.targets[row.pts or 0]
        for position, row in rows
        if row.shown and (row.pts or 0) in segment.targets
    }


def max_payload_bytes(file_bytes: int, num_packets: int) -> int:
    """How many bytes packets of such a file may have together: what it holds, and headers. A file of kilobytes whose
    every packet is a keyframe would have its headers repeated for gigabytes."""
    return 2 * file_bytes + MORE_BYTES + _HEADER_BYTES * num_packets
