"""Packets of a file that is still coming: their table by libavformat from the header, their bytes as they come.

libavformat is given the header and zeros for the media: times, sizes, places and what an edit list cuts away are the
tables' alone. To say which are keyframes it looks into packets of some codecs, so that the table's own word is taken,
and held against each keyframe once it is here.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from gpuflow.codecs._backends.pyav_demux import Demuxed, Opened, open_stream, packets_within
from gpuflow.codecs.base import Deadline, MediaType
from gpuflow.codecs.video.arrival import GrowingBytes, Uncertain
from gpuflow.codecs.video.headers import RestartPoints
from gpuflow.codecs.video.keyframes import keyframe_reader
from gpuflow.codecs.video.plan import DecodePlan, PacketRow, Segment
from gpuflow.codecs.video.references import role_reader
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_ZEROS = bytes(1 << 18)
_HEADERS_WITHIN = frozenset({"avc3", "hev1"})  # sample entries that allow it (ISO/IEC 14496-15)


def demux_header(
    known: Mapping[int, bytes], size: int, body: GrowingBytes, kind: MediaType, *, limits: Limits, deadline: Deadline
) -> Demuxed | None:
    """The table of packets of a file of ``size`` bytes, of which ``known`` are known, by where they begin. ``None`` where packets do
    not all lie there, or their bytes say more about them than the table does.

    Raises:
        CorruptMedia, UnsupportedFormat, NoSuchStream, LimitExceeded: as ``pyav_demux.demux``.
    """
    opened = open_stream(_Hollow(known, size, deadline), kind, limits=limits)
    table = _table(opened, size, deadline)
    if opened.codec == "vp8" or not table:
        return None
    if body.in_parts and opened.codec_tag in _HEADERS_WITHIN:
        return None  # keyframes that are never fetched may change them
    places, rows = zip(*table, strict=True)
    packets = _Packets(places, rows, opened, body)
    if not packets.first_is_key():
        return None
    return opened.demuxed(packets, rows, size, arrival=_Arriving(packets, rows, body, opened))


def _table(opened: Opened, size: int, deadline: Deadline) -> list[tuple[tuple[int, int], PacketRow]]:
    """Where each packet lies, from its first byte to behind its last, and its row; nothing where that is not all.

    Which are keyframes is the container's word: libavformat looks for some codecs into packets, and here at zeros.
    """
    import av

    table: list[tuple[tuple[int, int], PacketRow]] = []
    entries = opened.stream.index_entries
    keys = [entry.is_keyframe for entry in entries]
    told = True
    try:
        for number, packet in enumerate(packets_within(opened, size, deadline)):
            place = -1 if packet.pos is None else packet.pos
            told = told and number < len(keys) and place >= 0 and not packet.has_sidedata("new_extradata")
            row = PacketRow(packet.pts, told and keys[number], not packet.is_discard, packet.duration or 0)
            table.append(((place, place + packet.size), row))
    except av.error.FFmpegError as error:
        raise CorruptMedia("the table of packets cannot be read") from error
    return table if told and len(table) == len(keys) else []


@dataclass(frozen=True, slots=True)
class _Arriving:
    """See ``Arrival``."""

    packets: _Packets
    rows: Sequence[PacketRow]
    body: GrowingBytes
    opened: Opened

    def expect(self, segments: Iterable[Segment]) -> None:
        """See ``Arrival``."""
        self.body.expect(place for segment in segments for place in self._places(segment))

    def ready(self, segment: Segment) -> bool:
        """See ``Arrival``."""
        return all(self.body.has(*place) for place in self._places(segment))

    def prepared(self, segment: Segment) -> Segment:
        """See ``Arrival``."""
        read = role_reader(self.opened.codec, self.opened.extradata)
        if read is None or segment.counted or not self.ready(segment):
            return segment
        plan = DecodePlan((segment,)).thinned(self.rows, lambda position: read(memoryview(self.packets[position])))
        return plan.segments[0]

    def _places(self, segment: Segment) -> Sequence[tuple[int, int]]:
        return self.packets.places[segment.first : segment.last + 1]


class _Packets(Sequence[Any]):
    """Packets that are made when they are asked for, once their bytes are here."""

    def __init__(
        self, places: Sequence[tuple[int, int]], rows: Sequence[PacketRow], opened: Opened, body: GrowingBytes
    ) -> None:
        self.places = places
        self._rows = rows
        self._opened = opened
        self._body = body
        self._is_key = keyframe_reader(opened.codec, opened.extradata)
        self._keys = tuple(position for position, row in enumerate(rows) if row.key)
        self._num_checked = 0
        self._checking = threading.Lock()

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, position: int) -> Any: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Any]: ...
    def __getitem__(self, position: int | slice) -> Any:
        if isinstance(position, slice):
            return _Some(self, range(*position.indices(len(self))))
        return self._made(position)

    def first_is_key(self) -> bool:
        """Whether decoding can begin at the first packet; waits for it."""
        try:
            self._made(0)
        except Uncertain:
            return False
        return self._rows[0].key

    def _made(self, position: int) -> Any:
        import av

        (first, end), row = self.places[position], self._rows[position]
        if not self._body.wait(first, end):
            raise CorruptMedia("the body ends before the media that its header names")
        payload = self._body.read(first, end)
        if row.key:
            self._check_keys(position, payload)
        packet = av.Packet(len(payload))  # of bytes it would lack the padding that FFmpeg reads
        packet.update(payload)
        packet.pts, packet.time_base, packet.is_keyframe = row.pts, self._opened.stream.time_base, row.key
        return packet

    def _check_keys(self, position: int, payload: bytes) -> None:
        """Hold a keyframe, and where they are here those before it, against what the table says of it."""
        if self._body.in_parts:
            self._check_key(payload)
            return
        with self._checking:
            while self._num_checked < len(self._keys) and self._keys[self._num_checked] <= position:
                place = self.places[self._keys[self._num_checked]]
                if not self._body.has(*place):
                    raise Uncertain("a keyframe lies behind the packets that follow it")
                self._check_key(self._body.read(*place))
                self._num_checked += 1

    def _check_key(self, payload: bytes) -> None:
        if self._is_key is not None and not self._is_key(memoryview(payload)):
            raise Uncertain("a packet is no keyframe, although the table says so")
        points = RestartPoints(self._opened.codec, self._opened.extradata)
        if not points.here(memoryview(payload)):
            raise Uncertain("decoding cannot begin at a packet that the table calls a keyframe")
        if not points.here(memoryview(b"")):  # one without headers of its own
            raise Uncertain("a keyframe brings other headers than the table has")


class _Some(Sequence[Any]):
    """Some of the packets, made as they are asked for."""

    def __init__(self, packets: _Packets, positions: range) -> None:
        self._packets = packets
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return _Some(self._packets, self._positions[place])
        return self._packets[self._positions[place]]


class _Hollow(io.RawIOBase):
    """A file of the bytes that are known, and zeros."""

    def __init__(self, known: Mapping[int, bytes], size: int, deadline: Deadline) -> None:
        self._deadline = deadline
        self._known = known
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        self._deadline.check()
        start, left = self._at, max(0, self._size - self._at)
        wanted = min(left if size < 0 else min(size, left), len(_ZEROS))
        for first, data in self._known.items():
            if first <= start < first + len(data):
                found = data[start - first : start - first + wanted]
                self._at += len(found)
                return found
            if start < first < start + wanted:
                wanted = first - start
        self._at += wanted
        return _ZEROS[:wanted]
