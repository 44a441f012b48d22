"""Packets of a file that is still coming: their table by libavformat from the header, their bytes as they come.

libavformat is given the header and zeros for the media: times, sizes, places and what an edit list cuts away are the
tables' alone. Of H.264 it looks into packets to say which are keyframes, so that there the table's own word is taken,
and held against each packet once it is here.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

from gpuflow.codecs._backends import pyav_demux
from gpuflow.codecs.base import Deadline, MediaType
from gpuflow.codecs.probe.claims import check_size
from gpuflow.codecs.video.headers import RestartPoints
from gpuflow.codecs.video.plan import DecodePlan, PacketRow, Segment
from gpuflow.codecs.video.references import length_bytes, may_begin, role_reader
from gpuflow.codecs.video.stream import max_payload_bytes
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, GpuflowError, LimitExceeded

_ZEROS = bytes(1 << 18)
_HEADERS_WITHIN = frozenset({"avc3", "hev1"})  # sample entries that allow it (ISO/IEC 14496-15)
_H264_IDR, _H264_SEI, _H264_RECOVERY_POINT = 5, 6, 6


class Bytes(Protocol):
    """See ``codecs.video.progressive.GrowingBytes``."""

    @property
    def in_parts(self) -> bool: ...
    def expect(self, extents: Iterable[tuple[int, int]]) -> None: ...
    def has(self, first: int, end: int) -> bool: ...
    def wait(self, first: int, end: int) -> bool: ...
    def read(self, first: int, end: int) -> bytes: ...


class Uncertain(GpuflowError):
    """The bytes contradict the header: only all of them tell. Never seen outside."""


@dataclass(frozen=True, slots=True, eq=False)
class GrowingDemuxed(pyav_demux.Demuxed):
    """``Demuxed`` whose packets wait for their bytes."""

    def ready(self, first: int, last: int) -> bool:
        """Whether these packets are all here."""
        packets: Any = self.packets
        return bool(packets.ready(first, last))

    def expect(self, segments: Iterable[Segment]) -> None:
        """These segments will be decoded, in this order."""
        packets: Any = self.packets
        packets.expect((segment.first, segment.last) for segment in segments)

    def prepared(self, segment: Segment) -> Segment:
        """The segment without the packets that its pictures do not need, where they can be looked at already."""
        read = role_reader(self.codec, self.extradata or b"")
        if read is None or not self.ready(segment.first, segment.last):
            return segment
        packets = self.packets
        plan = DecodePlan((segment,)).thinned(self.rows, lambda position: read(memoryview(packets[position])))
        return plan.segments[0]


def demux_header(
    known: Mapping[int, bytes], size: int, body: Bytes, kind: MediaType, *, limits: Limits, deadline: Deadline
) -> GrowingDemuxed | None:
    """The table of packets of a file of ``size`` bytes, of which ``known`` are known, by where they begin. ``None`` where packets do
    not all lie there, or their bytes say more about them than the table does.

    Raises:
        CorruptMedia, UnsupportedFormat, NoSuchStream, LimitExceeded: as ``pyav_demux.demux``.
    """
    import av

    with pyav_demux.translated(f"opening {kind.name}"):
        container = av.open(
            _Hollow(known, size, deadline),
            format=kind.format,
            options=pyav_demux.open_options(kind, limits),
            stream_options=pyav_demux._stream_options(kind, limits),
            metadata_errors="replace",
        )
        stream = pyav_demux._shown_stream(container)
    codec = pyav_demux._codec_name(stream, kind)
    context = stream.codec_context
    check_size(context.width, context.height, limits)
    context.thread_count = 1
    context.options = {"max_pixels": str(limits.max_video_pixels)}
    places, rows = _table(container, stream, codec, size, deadline)
    if codec == "vp8" or not rows or any(place is None for place in places):
        return None
    if body.in_parts and pyav_demux._codec_tag(context) in _HEADERS_WITHIN:
        return None  # keyframes that are never fetched may change them
    rate = stream.guessed_rate
    packets: Any = _Packets(
        tuple(place for place in places if place), rows, stream.time_base, body, codec, context.extradata
    )
    if not packets.first_is_key():
        return None
    length: Any = _Length(size)
    return GrowingDemuxed(
        data=length,
        packets=packets,
        rows=tuple(rows),
        time_base=stream.time_base,
        claimed_rate=float(rate) if rate else 0.0,
        order_unknown=False,
        codec=codec,
        decoder=context.name,
        extradata=context.extradata,
        codec_tag=pyav_demux._codec_tag(context),
        max_pixels=limits.max_video_pixels,
        container=container,
        stream=stream,
        begun=[],
    )


def _table(
    container: Any, stream: Any, codec: str, size: int, deadline: Deadline
) -> tuple[list[tuple[int, int] | None], list[PacketRow]]:
    """Where each packet lies, from its first byte to behind its last, and its row; one ``None`` among them says that
    the table is not all."""
    import av

    places: list[tuple[int, int] | None] = []
    rows: list[PacketRow] = []
    nbytes, most_bytes = 0, max_payload_bytes(size, 0)
    entries = stream.index_entries
    keys = [entry.is_keyframe for entry in entries] if codec == "h264" else None
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            nbytes += packet.size
            if nbytes > most_bytes:
                raise LimitExceeded(f"the packets have more than {nbytes} bytes, the file has {size}")
            if len(rows) >= pyav_demux.MAX_PACKETS:
                raise LimitExceeded(f"more than {pyav_demux.MAX_PACKETS} packets in one video stream")
            if len(rows) % 256 == 0:
                deadline.check()
            known = packet.pos is not None and packet.pos >= 0 and not packet.has_sidedata("new_extradata")
            places.append((packet.pos, packet.pos + packet.size) if known else None)
            key = packet.is_keyframe if keys is None else len(rows) < len(keys) and keys[len(rows)]
            rows.append(PacketRow(packet.pts, key, not packet.is_discard, packet.duration or 0))
    except av.error.FFmpegError as error:
        raise CorruptMedia("the table of packets cannot be read") from error
    if len(rows) != len(entries):
        places.append(None)
    return places, rows


class _Packets(Sequence[Any]):
    """Packets that are made when they are asked for, once their bytes are here."""

    def __init__(
        self,
        places: tuple[tuple[int, int], ...],
        rows: Sequence[PacketRow],
        time_base: Any,
        body: Bytes,
        codec: str,
        extradata: bytes | None,
    ) -> None:
        self._places = places
        self._rows = rows
        self._time_base = time_base
        self._body = body
        self._nal_bytes = _nal_length_bytes(extradata or b"") if codec == "h264" else 0
        self._codec = codec
        self._extradata = extradata or b""
        self._keys = tuple(position for position, row in enumerate(rows) if row.key)
        self._num_checked = 0
        self._checking = threading.Lock()

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, position: int) -> Any: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Any]: ...
    def __getitem__(self, position: int | slice) -> Any:
        if isinstance(position, slice):
            return _Some(self, range(*position.indices(len(self))))
        return self._made(position)

    def ready(self, first: int, last: int) -> bool:
        """Whether the bytes of these packets are here."""
        return all(self._body.has(*place) for place in self._places[first : last + 1])

    def expect(self, spans: Iterable[tuple[int, int]]) -> None:
        """Packets from the first to the last of each span will be wanted, in this order."""
        self._body.expect(place for first, last in spans for place in self._places[first : last + 1])

    def first_is_key(self) -> bool:
        """Whether decoding can begin at the first packet; waits for it."""
        try:
            self._made(0)
        except Uncertain:
            return False
        return self._rows[0].key

    def _made(self, position: int) -> Any:
        import av

        (first, end), row = self._places[position], self._rows[position]
        if not self._body.wait(first, end):
            raise CorruptMedia("the body ends before the media that its header names")
        payload = self._body.read(first, end)
        if row.key:
            self._check_keys(position, payload)
        packet = av.Packet(len(payload))  # of bytes it would lack the padding that FFmpeg reads
        packet.update(payload)
        packet.pts, packet.time_base, packet.is_keyframe = row.pts, self._time_base, row.key
        return packet

    def _check_keys(self, position: int, payload: bytes) -> None:
        """Hold a keyframe, and where they are here those before it, against what the table says of it."""
        if self._body.in_parts:
            self._check_key(payload)
            return
        with self._checking:
            while self._num_checked < len(self._keys) and self._keys[self._num_checked] <= position:
                place = self._places[self._keys[self._num_checked]]
                if not self._body.has(*place):
                    raise Uncertain("a keyframe lies behind the packets that follow it")
                self._check_key(self._body.read(*place))
                self._num_checked += 1

    def _check_key(self, payload: bytes) -> None:
        if self._nal_bytes and not _begins_decoding(payload, self._nal_bytes):
            raise Uncertain("a packet is no keyframe, although the table says so")
        points = RestartPoints(self._codec, self._extradata)
        if not may_begin(self._codec, memoryview(payload), length_bytes(self._codec, self._extradata)):
            raise Uncertain("a packet is no intra picture, although the table calls it a keyframe")
        points.here(memoryview(payload))
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


class _Length:
    """What stands for data of which only the length counts."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


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


def _nal_length_bytes(extradata: bytes) -> int:
    """How many bytes tell the length of each unit (ISO/IEC 14496-15, 5.3.3.1); 0 where units have start codes."""
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0


def _units(payload: bytes, length_bytes: int) -> Iterator[bytes]:
    at = 0
    while at + length_bytes < len(payload):
        start = at + length_bytes
        at = start + int.from_bytes(payload[at:start], "big")
        yield payload[start:at]


def _begins_decoding(payload: bytes, length_bytes: int) -> bool:
    """Whether libavformat calls an H.264 packet a keyframe: one with an IDR picture, or a recovery point; and a
    recovery point that is right at once.

    Source: ITU-T H.264, 7.4.1 (unit types) and annex D (SEI payload 6 begins with recovery_frame_cnt as ue(v)).
    """
    for unit in _units(payload, length_bytes):
        kind = unit[0] & 31 if unit else 0
        if kind == _H264_IDR:
            return True
        if kind == _H264_SEI and _recovers_at_once(unit[1:]):
            return True
    return False


def _recovers_at_once(messages: bytes) -> bool:
    at = 0
    while at + 2 < len(messages) and messages[at] != 0x80:
        if messages[at] == _H264_RECOVERY_POINT:
            return bool(messages[at + 2] & 0x80)
        if messages[at + 1] == 0xFF:
            return False  # too long to be the short one that is looked for
        at += 2 + messages[at + 1]
    return False
