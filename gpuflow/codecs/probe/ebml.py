"""What a Matroska or WebM file claims: the elements before its first cluster, and those that its index points at.

Source: RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from gpuflow.codecs.probe.claims import ContainerClaims, Kind, TrackClaims, check_count, check_room, seconds_of
from gpuflow.codecs.probe.elementary import check_units
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, UnsupportedFormat

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_INFO, _TRACKS, _TRACK, _SEEK_HEAD, _SEEK, _TAGS = 0x1549A966, 0x1654AE6B, 0xAE, 0x114D9B74, 0x4DBB, 0x1254C367
_VIDEO, _AUDIO, _ENCODINGS, _ENCODING, _COMPRESSION = 0xE0, 0xE1, 0x6D80, 0x6240, 0x5034
_TAG, _SIMPLE_TAG, _ATTACHMENTS, _ATTACHMENT = 0x7373, 0x67C8, 0x1941A469, 0x61A7
_CONTAINERS = {  # whose elements are looked at; none of them may leave its size open
    _INFO, _TRACKS, _TRACK, _SEEK_HEAD, _SEEK, _VIDEO, _AUDIO, _ENCODINGS, _ENCODING, _COMPRESSION,
    _TAGS, _TAG, _SIMPLE_TAG, _ATTACHMENTS, _ATTACHMENT,
}  # fmt: skip
_SCALE, _DURATION = 0x2AD7B1, 0x4489
_TRACK_TYPE, _CODEC, _WIDTH, _HEIGHT, _RATE, _CHANNELS = 0x83, 0x86, 0xB0, 0xBA, 0xB5, 0x9F
_PRIVATE = 0x63A2
_BARE = {"V_MPEG4/ISO/AVC": "h264", "V_MPEGH/ISO/HEVC": "hevc"}  # where no private data hold the headers
_ALGORITHM, _SETTINGS, _SEEK_ID, _SEEK_POSITION = 0x4254, 0x4255, 0x53AB, 0x53AC
_INDEXED = tuple(kind.to_bytes(4, "big") for kind in sorted(_CONTAINERS) if kind > 0xFFFFFF)
_KINDS: dict[int, Kind] = {1: "video", 2: "audio"}
_ZLIB, _HEADER_STRIPPING = 0, 3
_MAX_STRIPPED_BYTES = 64  # put before each packet again: a long one makes much of little
_NANOSECONDS = 1e9
_DEFAULT_SCALE = 1_000_000
_DEFAULT_HZ = 8_000.0


@dataclass(slots=True)
class _Track:
    """One track entry as it is read."""

    kind: int = 0
    codec: str = ""
    width: int = 0
    height: int = 0
    sample_rate: float = 0.0
    channels: int = 1
    compressions: list[int] = field(default_factory=list)
    stripped: int = 0
    private: bool = False

    def claims(self, seconds: float | None) -> TrackClaims:
        kind: Kind = _KINDS.get(self.kind, "other")
        hertz = self.sample_rate or _DEFAULT_HZ
        rate = int(hertz) if 0 <= hertz < 2**32 else 2**32  # also no number
        if kind != "audio":
            return TrackClaims(kind, self.codec, self.width, self.height, duration_seconds=seconds)
        return TrackClaims(kind, self.codec, sample_rate=rate, channels=self.channels, duration_seconds=seconds)


def matroska_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """Walk the elements of the first segment; clusters of a known size are stepped over, the first without one ends it.

    Raises:
        LimitExceeded: too many tracks or elements, or nested too deep.
        CorruptMedia: no tracks, an element larger than what holds it, one of an unknown size that may not be.
        UnsupportedFormat: packets that are compressed with zlib and the like: 10 KB of them become 10 MB.
    """
    walk = _Walk(data, limits)
    walk.run()
    for track in walk.tracks:
        _check_compression(track)
    check_units(data, [_BARE[track.codec] for track in walk.tracks if track.codec in _BARE and not track.private])
    seconds = seconds_of(walk.duration, _NANOSECONDS / walk.scale)
    return ContainerClaims("matroska", tuple(track.claims(seconds) for track in walk.tracks), seconds)


def _check_compression(track: _Track) -> None:
    if track.kind not in _KINDS:
        return
    if any(algorithm != _HEADER_STRIPPING for algorithm in track.compressions):
        raise UnsupportedFormat("packets compressed within Matroska are not read: remux the file without compression")
    if track.stripped > _MAX_STRIPPED_BYTES:
        raise LimitExceeded(f"{track.stripped} bytes are to be put before every packet; {_MAX_STRIPPED_BYTES} may be")


class _Walk:
    def __init__(self, data: bytes, limits: Limits) -> None:
        self.tracks: list[_Track] = []
        self.scale = _DEFAULT_SCALE
        self.duration = 0.0
        self._data = data
        self._limits = limits
        self._elements = 0
        self._seen: set[int] = set()
        self._targets: list[int] = []
        self._seek_id = self._top = 0

    def run(self) -> None:
        kind, first, size = self._header(0, len(self._data))
        if kind != _EBML or size is None:
            raise CorruptMedia("the file does not begin with an EBML header of a known size")
        check_room(size, len(self._data) - first, "the EBML header")
        kind, body, size = self._header(first + size, len(self._data))
        if kind != _SEGMENT:
            raise CorruptMedia("no segment follows the EBML header")
        end = len(self._data) if size is None else min(len(self._data), body + size)
        self._segment(body, end)
        for target in self._targets:  # grows while it is read
            self._follow(body + target, end)
        if not self.tracks:
            raise CorruptMedia("the file describes no tracks")

    def _segment(self, at: int, end: int) -> None:
        """Top-level elements. The file may break off in any cluster; before the tracks were read it may not."""
        while at < end:
            if self.tracks and self._breaks_off(at, end):
                return
            if self._data.startswith(_INDEXED, at):
                self._seen.add(at)
            at = self._one(at, end, 1) or end

    def _breaks_off(self, at: int, end: int) -> bool:
        """Whether what begins here is junk after the media, or a last element that is cut."""
        try:
            kind, first, size = self._header(at, end)
        except CorruptMedia:
            return True
        return kind != _TRACKS and size is not None and first + size > end

    def _follow(self, at: int, end: int) -> None:
        """Look at what an index points at, where that is an element that would be read from there."""
        if at + 12 <= end and at not in self._seen and self._data.startswith(_INDEXED, at):
            self._seen.add(at)
            self._one(at, end, 1)

    def _one(self, at: int, end: int, level: int) -> int:
        """Look at one element; where the next begins, 0 at a cluster whose size is open."""
        kind, first, size = self._header(at, end)
        self._elements += 1
        if self._elements > self._limits.max_boxes:
            check_count(self._elements, self._limits.max_boxes, "elements", "max_boxes")
        if size is None:
            if kind == _CLUSTER and level == 1:
                return 0
            raise CorruptMedia("an element that needs a size leaves it open")
        if level > 1 or kind in _CONTAINERS:
            check_room(size, end - first, "an element")
        if level == 1:
            self._top = kind
        if kind in _CONTAINERS:
            check_count(level, self._limits.max_box_depth, "levels of elements", "max_box_depth")
            self._enter(kind, first, first + size, level + 1)
        elif level > 1:
            self._read(kind, first, size)
        return first + size

    def _enter(self, kind: int, at: int, end: int, level: int) -> None:
        if kind == _TRACK:
            self.tracks.append(_Track())
            check_count(len(self.tracks), self._limits.max_tracks, "tracks", "max_tracks")
        elif kind == _COMPRESSION and self.tracks:
            self.tracks[-1].compressions.append(_ZLIB)  # what holds where no algorithm is named
        while at < end:
            at = self._one(at, end, level)

    def _read(self, kind: int, first: int, size: int) -> None:
        if kind == _SCALE:
            self.scale = self._integer(first, size)
            if self.scale == 0:
                raise CorruptMedia("the time scale is 0")
        elif kind == _DURATION:
            self.duration = self._float(first, size)
        elif kind == _SEEK_ID:
            self._seek_id = self._integer(first, size)
        elif kind == _SEEK_POSITION and self._seek_id in _CONTAINERS:
            self._targets.append(self._integer(first, size))
        elif self.tracks and self._top == _TRACKS:
            self._describe(self.tracks[-1], kind, first, size)

    def _describe(self, track: _Track, kind: int, first: int, size: int) -> None:
        if kind == _TRACK_TYPE:
            track.kind = self._integer(first, size)
        elif kind == _CODEC:
            track.codec = self._data[first : first + min(size, 64)].rstrip(b"\0").decode("latin-1")
        elif kind == _PRIVATE:
            track.private = size > 0
        elif kind == _WIDTH:
            track.width = max(track.width, self._integer(first, size))
        elif kind == _HEIGHT:
            track.height = max(track.height, self._integer(first, size))
        elif kind == _RATE:
            track.sample_rate = self._float(first, size)
        elif kind == _CHANNELS:
            track.channels = max(track.channels, self._integer(first, size))
        elif kind == _ALGORITHM and track.compressions:
            track.compressions[-1] = self._integer(first, size)
        elif kind == _SETTINGS:
            track.stripped += size

    def _header(self, at: int, end: int) -> tuple[int, int, int | None]:
        """Id, first byte of the body, and its size, ``None`` where it is open."""
        data = self._data
        if at >= end or not (length := _LENGTHS[data[at]]) or length > 4:
            raise CorruptMedia("no element begins where one should")
        body = at + length
        if body >= end or not (width := _LENGTHS[data[body]]) or body + width > end:
            raise CorruptMedia("an element's size is broken off, or wider than eight bytes")
        size = int.from_bytes(data[body : body + width], "big") & ((1 << 7 * width) - 1)
        kind = int.from_bytes(data[at:body], "big")
        return kind, body + width, None if size == (1 << 7 * width) - 1 else size

    def _integer(self, first: int, size: int) -> int:
        if size > 8:
            raise CorruptMedia(f"an integer claims {size} bytes")
        return int.from_bytes(self._data[first : first + size], "big")

    def _float(self, first: int, size: int) -> float:
        if size not in (0, 4, 8):
            raise CorruptMedia(f"a floating-point number claims {size} bytes")
        value: float = struct.unpack_from(">f" if size == 4 else ">d", self._data, first)[0] if size else 0.0
        return value


_LENGTHS = tuple(9 - byte.bit_length() if byte else 0 for byte in range(256))  # by the first byte's leading zeros
