"""Files for libraries that demux by themselves: whether they count the same frames as our packet table does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

from gpuflow.codecs.video.plan import PacketRow

_FORMATS = ("mov", "matroska")  # names of libavformat's demuxers whose frames such libraries find by an index


class WholeFile(Protocol):
    """A clip's file, with the packets that we found in it. ``format``: names of libavformat's demuxer."""

    @property
    def data(self) -> bytes: ...
    @property
    def rows(self) -> Sequence[PacketRow]: ...
    @property
    def order_unknown(self) -> bool: ...
    @property
    def format(self) -> str: ...
    def payloads(self, first: int, last: int, skipped: Sequence[int] = ()) -> Iterator[tuple[int, bytes]]: ...


def whole_file(stream: Any) -> WholeFile | None:
    """A stream as the file that it was read from, where all of that is here."""
    return stream if getattr(stream, "data", b"") else None


def miscounted(file: WholeFile) -> str | None:
    """Why another library's number of a frame is not ours, or ``None``: then frame ``n`` is its ``n`` too.

    They number the packets of the file by time. Ours are the displayed frames: what an edit list cuts away, pictures
    that are only reference, times below 0, missing or repeated ones make a difference.
    """
    if not any(name in _FORMATS for name in file.format.split(",")):
        return f"frames of {file.format.partition(',')[0]} are not found by number"
    if file.order_unknown or not file.rows or not file.rows[0].key:
        return "the file does not say when its pictures are shown"
    if not all(row.shown for row in file.rows):
        return "an edit list, or pictures that are only reference, make its packets more than its frames"
    times = [row.pts for row in file.rows if row.pts is not None]
    if len(times) < len(file.rows):
        return "packets without a time"
    if min(times) < 0:
        return "times below 0"
    if any(later == earlier for earlier, later in pairwise(sorted(times))):
        return "two pictures of the same time"
    return None


def resized(file: WholeFile, codec: str) -> bool:
    """Whether keyframes of VP8 or VP9 change the picture's size; libraries that take the first one's write others over
    each other. Of other codecs nothing is known here."""
    if codec not in ("vp8", "vp9"):
        return False
    keys = (position for position, row in enumerate(file.rows) if row.key)
    sizes = {_keyframe_size(codec, payload) for key in keys for _, payload in file.payloads(key, key)}
    return len(sizes) > 1 or None in sizes


def _keyframe_size(codec: str, payload: bytes) -> tuple[int, int] | None:
    """Source: RFC 6386 section 9.1; VP9 bitstream specification section 6.2, of profile 0."""
    if codec == "vp8":
        sides = (payload[6:8], payload[8:10]) if payload[3:6] == b"\x9d\x01\x2a" else (b"", b"")
        return None if len(sides[1]) < 2 else (_little(sides[0]) & 0x3FFF, _little(sides[1]) & 0x3FFF)
    if len(payload) < 9 or payload[0] & 0xFC != 0x80 or payload[1:4] != b"\x49\x83\x42":
        return None
    bits = int.from_bytes(payload[4:9], "big")  # colour space 3, range 1, width - 1, height - 1, four more
    return (bits >> 20 & 0xFFFF) + 1, (bits >> 4 & 0xFFFF) + 1


def _little(number: bytes) -> int:
    return int.from_bytes(number, "little")
