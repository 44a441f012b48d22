"""What an MP4 file claims about itself, read before libavformat sees it.

libavformat believes the numbers of a sample table: 9 KB make it allocate 3.3 GB, and the time that it takes for an
edit list grows with the square of its entries (10,000: 12 s). So the claims are bounded first, by a walk over the boxes
that libavformat descends into; nothing is allocated by them here.

Source: ISO/IEC 14496-12 for the layout; the figures were measured on FFmpeg 8.1 (PyAV 18.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpuflow.errors import LimitExceeded, UnsupportedFormat

MAX_EDITS = 1_024  # below 0.5 s
MAX_SAMPLES = 500_000  # two hours at 60 frames a second
MAX_FRAGMENT_SAMPLES = 2_000_000
MAX_TRACKS = 16
MAX_BOXES = 100_000  # an hour in fragments of one second takes 30,000
MAX_DEPTH = 12
_PCM_INDEX_SAMPLES = 1_024  # libavformat indexes PCM in pieces of so many samples

_CONTAINERS = frozenset(
    (
        b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"dinf", b"udta", b"moof", b"traf", b"mvex",
        b"ilst", b"wave", b"sinf", b"schi", b"tapt", b"tref", b"free", b"hoov",
    )
)  # fmt: skip
_SAMPLE_ENTRY_BYTES = {b"vide": 86, b"soun": 36}
_SOUND_VERSION_BYTES = {1: 16, 2: 36}


@dataclass(slots=True)
class _Track:
    """The largest claims of one track's tables."""

    handler: bytes = b""
    samples: int = 0
    samples_per_chunk: int = 0
    chunks: int = 0
    one_tick_samples: bool = False

    def index_entries(self) -> int:
        """How many entries libavformat's index of this track takes."""
        if self.handler == b"soun" and self.one_tick_samples:
            return self.chunks * (1 + self.samples_per_chunk // _PCM_INDEX_SAMPLES)
        return max(self.samples, self.samples_per_chunk)


def check_boxes(data: bytes) -> None:
    """Refuse an MP4 or MOV whose tables claim more than a decoder should be asked to believe.

    Raises:
        LimitExceeded: too many edits, samples, tracks or boxes, or nested too deep.
        UnsupportedFormat: a compressed movie header, which could hide all of these.
    """
    walk = _Walk(data)
    walk.run()
    for track in walk.tracks:
        _limit(track.index_entries(), MAX_SAMPLES, "samples in a track")


class _Walk:
    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.tracks: list[_Track] = [_Track()]
        self.boxes = 0
        self.fragment_samples = 0

    def run(self) -> None:
        self._descend(0, len(self.data), 0)

    def _descend(self, start: int, end: int, depth: int) -> None:
        _limit(depth, MAX_DEPTH, "levels of boxes")
        for name, first, last in self._children(start, end):
            self.boxes += 1
            _limit(self.boxes, MAX_BOXES, "boxes")
            if name == b"cmov":
                raise UnsupportedFormat("a compressed movie header (cmov) is not read: store the file uncompressed")
            if name == b"trak":
                self.tracks.append(_Track())
                _limit(len(self.tracks) - 1, MAX_TRACKS, "tracks")
            if name in _CONTAINERS:
                self._descend(first, last, depth + 1)
            elif name == b"meta":
                self._descend(first + (0 if bytes(self.data[first + 4 : first + 8]) == b"hdlr" else 4), last, depth + 1)
            elif name == b"stsd":
                self._descend_into_entries(first + 8, last, depth + 1)
            else:
                self._read(name, first, last)

    def _children(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """``(name, first byte of the body, end)``; sizes are cut to the parent's end, as libavformat does."""
        while start + 8 <= end:
            size, header = self._u32(start), 8
            name = bytes(self.data[start + 4 : start + 8])
            if size == 1 and start + 16 <= end:
                size, header = struct.unpack_from(">Q", self.data, start + 8)[0], 16
            stop = end if size == 0 else min(end, start + size)
            if size != 0 and size < header:
                return
            yield name, start + header, stop
            start = stop

    def _descend_into_entries(self, start: int, end: int, depth: int) -> None:
        """Sample descriptions carry boxes after their fixed part."""
        fixed = _SAMPLE_ENTRY_BYTES.get(self.tracks[-1].handler)
        if fixed is None:
            return
        for _, first, last in self._children(start, end):
            head = fixed
            if fixed == _SAMPLE_ENTRY_BYTES[b"soun"] and first + 10 <= last:
                head += _SOUND_VERSION_BYTES.get(int.from_bytes(self.data[first + 8 : first + 10], "big"), 0)
            self._descend(first + head - 8, last, depth)

    def _read(self, name: bytes, first: int, last: int) -> None:
        track = self.tracks[-1]
        if name == b"hdlr" and first + 12 <= last and not track.handler:
            track.handler = bytes(self.data[first + 8 : first + 12])
        elif name == b"elst":
            _limit(max(self._u32(first + 4), (last - first - 8) // 12), MAX_EDITS, "edits")
        elif name in (b"stsz", b"stz2"):
            track.samples = max(track.samples, self._u32(first + 8))
        elif name in (b"stts", b"ctts"):
            counts = self._table(first, last, 2)
            track.samples = max(track.samples, int(counts[:, 0].sum()))
            track.one_tick_samples |= name == b"stts" and len(counts) == 1 and int(counts[0, 1]) == 1
        elif name == b"stsc":
            counts = self._table(first, last, 3)
            track.samples_per_chunk = max(track.samples_per_chunk, int(counts[:, 1].max(initial=0)))
        elif name in (b"stco", b"co64"):
            track.chunks = max(track.chunks, min(self._u32(first + 4), (last - first) // 4))
        elif name == b"trun":
            self.fragment_samples += self._u32(first + 4)
            _limit(self.fragment_samples, MAX_FRAGMENT_SAMPLES, "samples in fragments")

    def _table(self, first: int, last: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        rows = min(self._u32(first + 4), max(0, last - first - 8) // (4 * columns))
        if rows == 0:
            return np.zeros((0, columns), np.int64)
        flat = np.frombuffer(self.data, ">u4", rows * columns, first + 8)
        return flat.astype(np.int64).reshape(rows, columns)

    def _u32(self, position: int) -> int:
        return int.from_bytes(self.data[position : position + 4], "big")


def _limit(claimed: int, allowed: int, what: str) -> None:
    if claimed > allowed:
        raise LimitExceeded(f"the file claims {claimed} {what}; {allowed} are allowed")
