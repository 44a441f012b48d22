"""What an MP4 or MOV claims about itself, read before libavformat sees it.

libavformat believes the numbers of a sample table: 9 KB make it allocate 3.3 GB, and the time that it takes for an
edit list grows with the square of its entries (10,000: 12 s). So the claims are bounded first, by a walk over the boxes
that libavformat descends into; nothing is allocated by them here.

Source: ISO/IEC 14496-12 for the layout; the figures were measured on FFmpeg 8.1 (PyAV 18.1).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from gpuflow.codecs.probe.claims import ContainerClaims, Kind, TrackClaims, check_count, check_room, seconds_of
from gpuflow.codecs.probe.elementary import check_units
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, LimitExceeded, UnsupportedFormat

_PCM_INDEX_SAMPLES = 1_024  # libavformat indexes PCM in pieces of so many samples
_FRAGMENTS = 5  # times max_boxes within fragments, times max_samples in all of them: an hour in pieces of one second
_STRICT = frozenset(
    (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"dinf", b"moof", b"traf", b"mvex")
)  # writers get these right; what lies in "udta" may be anything
_CONTAINERS = _STRICT | {b"udta", b"ilst", b"wave", b"sinf", b"schi", b"tapt", b"tref"}
_HIDING = (b"free", b"hoov")  # libavformat looks for a movie header in these
_SAMPLE_ENTRY_BYTES = {b"vide": 86, b"pict": 86, b"auxv": 86, b"soun": 36}  # the middle two are of AVIF sequences
_WITH_RECORD = dict.fromkeys(
    (b"avc1", b"avc2", b"avc3", b"avc4", b"h264", b"dva1", b"dvav", b"rv64", b"aivx", b"avin"), ("h264", b"avcC")
) | dict.fromkeys((b"hev1", b"hvc1", b"dvh1", b"dvhe"), ("hevc", b"hvcC"))
_SOUND_VERSION_BYTES = {1: 16, 2: 36}
_KINDS: dict[bytes, Kind] = {b"vide": "video", b"soun": "audio"}
_ROWS = {  # bytes of one row of a table whose count stands at 4
    b"stts": 8, b"ctts": 8, b"stsc": 12, b"stss": 4, b"stps": 4, b"stco": 4, b"co64": 8, b"dref": 8, b"stsd": 8,
}  # fmt: skip
_READ = frozenset(_ROWS) | {b"stsz", b"stz2", b"hdlr", b"mdhd", b"mvhd", b"elst", b"trun", b"cmov"}
_TRUN_FIRST = {0x001: 4, 0x004: 4}  # optional fields before the samples of a run, by flag
_TRUN_EACH = (0x100, 0x200, 0x400, 0x800)  # four bytes a sample each
_HEADER = struct.Struct(">I4s").unpack_from
_LONG = struct.Struct(">Q").unpack_from
_UNKNOWN = {4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}


@dataclass(slots=True)
class _Track:
    """The largest claims of one track's tables."""

    handler: bytes = b""
    codec: str = ""
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    samples: int = 0
    samples_per_chunk: int = 0
    chunks: int = 0
    one_tick_samples: bool | None = None
    seconds: float | None = None
    scale: int = 0
    times: list[list[int]] | None = None  # so many samples take so many ticks each
    has_edits: bool = False
    uneven: bool = False

    def index_entries(self) -> int:
        """How many entries libavformat's index of this track takes."""
        if self.handler == b"soun" and self.one_tick_samples:
            return self.chunks * (1 + self.samples_per_chunk // _PCM_INDEX_SAMPLES)
        return max(self.samples, self.samples_per_chunk)

    def even_seconds(self) -> float | None:
        """See ``TrackClaims``."""
        if self.uneven or not (self.times and self.scale):
            return None
        (first, ticks), last = self.times[0], self.times[1:]
        if last and (last[0][0] != 1 or first + 1 != self.samples):
            return None
        return (first * ticks + sum(ticks for _, ticks in last)) / self.scale

    def claims(self, movie_seconds: float | None) -> TrackClaims:
        """As a value. An edit list may show less than the track holds: the shorter claim is the one that plays."""
        lengths = [length for length in (self.seconds, movie_seconds) if length is not None]
        return TrackClaims(
            kind=_KINDS.get(self.handler, "other"),
            codec=self.codec,
            width=self.width,
            height=self.height,
            sample_rate=self.sample_rate,
            channels=self.channels,
            num_samples=self.samples or None,
            duration_seconds=min(lengths, default=None),
            even_seconds=self.even_seconds(),
        )


def movie_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """Walk the boxes of an MP4 or MOV and bound its tables.

    Raises:
        LimitExceeded: too many edits, samples, tracks or boxes, or nested too deep.
        CorruptMedia: no movie header, a box larger than the one around it, a table larger than its box, no time scale.
        UnsupportedFormat: a compressed movie header, which could hide all of these.
    """
    walk = _Walk(data, limits)
    walk.descend(0, len(data), 0, b"")
    if not walk.has_movie:
        raise CorruptMedia("the file has no movie header (moov)")
    for track in walk.tracks:
        check_count(track.index_entries(), limits.max_samples, "samples in a track", "max_samples")
    check_units(data, walk.bare)
    tracks = tuple(track.claims(walk.seconds) for track in walk.tracks)
    return ContainerClaims("mp4", tracks, walk.seconds, sum(track.index_entries() for track in walk.tracks))


class _Walk:
    def __init__(self, data: bytes, limits: Limits) -> None:
        self.tracks: list[_Track] = []
        self.seconds: float | None = None
        self.has_movie = False
        self.bare: set[str] = set()  # codecs of tracks whose headers are in the packets only
        self._data = data
        self._limits = limits
        self._outside = _Track()  # what stands in no track
        self._left = [limits.max_boxes, _FRAGMENTS * limits.max_boxes]  # outside of fragments and in them
        self._fragment_samples = 0

    def descend(self, start: int, end: int, depth: int, parent: bytes, *, in_fragment: bool = False) -> None:
        """Visit the boxes between ``start`` and ``end``, which lie ``depth`` containers deep."""
        limits, data = self._limits, self._data
        check_count(depth, limits.max_box_depth, "levels of boxes", "max_box_depth")
        while start + 8 <= end:
            size, name = _HEADER(data, start)
            first, stop = start + 8, start + size
            if size < 8 or stop > end:
                first, stop = self._extent(start, end, size, name, parent)
                if stop == 0:
                    return
            self._left[in_fragment] -= 1
            if self._left[in_fragment] < 0:
                raise LimitExceeded(f"the file has more boxes than Limits.max_boxes allows: {limits.max_boxes}")
            if name in _CONTAINERS or (name in _HIDING and data[first + 4 : first + 8] == b"moov"):
                self._enter(name, first, stop, depth, in_fragment)
            elif name == b"meta":
                at = first if data[first + 4 : first + 8] == b"hdlr" else first + 4
                self.descend(at, stop, depth + 1, name, in_fragment=in_fragment)
            elif name in _READ:
                self._read(name, first, stop, depth)
            start = stop

    def _extent(self, start: int, end: int, size: int, name: bytes, parent: bytes) -> tuple[int, int]:
        """First byte of the body and the end; 0 and 0 where no whole box follows. At the top level a file may break off."""
        first = start + 8
        if size == 1 and first + 8 <= end:
            size, first = _LONG(self._data, first)[0], first + 8
        elif size == 0:
            return first, end
        if size < first - start:
            if parent in _STRICT or not self.has_movie:
                raise CorruptMedia(f"a box claims {size} bytes: fewer than its own header has")
            return 0, 0
        if start + size > end and name == b"moof" and not parent:
            return 0, 0  # a recording that breaks off
        if start + size > end and (parent in _STRICT or name == b"moov"):
            raise CorruptMedia(f"a box claims {size} bytes where {end - start} are left")
        return first, min(end, start + size)

    def _enter(self, name: bytes, first: int, stop: int, depth: int, in_fragment: bool) -> None:
        if name == b"trak":
            self.tracks.append(_Track())
            check_count(len(self.tracks), self._limits.max_tracks, "tracks", "max_tracks")
        self.has_movie |= name == b"moov"
        if name == b"moof":
            for track in self.tracks:
                track.uneven = True
        self.descend(first, stop, depth + 1, name, in_fragment=in_fragment or name == b"moof")

    def _read(self, name: bytes, first: int, last: int, depth: int) -> None:
        track = self.tracks[-1] if self.tracks else self._outside
        row = _ROWS.get(name)
        if row is not None:
            check_room(row * self._u32(first + 4), last - first - 8, f"a table ({name.decode('latin-1')})")
            self._read_table(name, first, last, depth, track)
        elif name in (b"stsz", b"stz2"):
            self._read_sizes(name, first, last, track)
        elif name == b"hdlr":
            handler = self._data[first + 8 : first + 12]
            track.handler = (
                handler if handler in _SAMPLE_ENTRY_BYTES else track.handler
            )  # as libavformat: the last known
        elif name == b"mdhd":
            track.seconds = self._duration(first)
            track.uneven |= track.scale != 0
            track.scale = self._u32(first + (20 if self._data[first] == 1 else 12))
        elif name == b"mvhd":
            self.seconds = self._duration(first)
        elif name == b"elst":
            edits = self._u32(first + 4)
            check_count(edits, self._limits.max_edits, "edits", "max_edits")
            row = 20 if self._data[first] == 1 else 12
            check_room(edits * row, last - first - 8, "an edit list")
            track.uneven |= track.has_edits or not self._is_plain(first + 8, edits, row // 2 - 2)
            track.has_edits = True
        elif name == b"trun":
            self._read_run(first, last)
        elif name == b"cmov":
            raise UnsupportedFormat("a compressed movie header (cmov) is not read: store the file uncompressed")

    def _is_plain(self, first: int, edits: int, field: int) -> bool:
        """Whether an edit list, whose fields have so many bytes, only says where a track begins and ends: an empty edit first,
        or none, and one more."""
        starts = [
            int.from_bytes(self._data[at + field : at + 2 * field], "big", signed=True)
            for at in (first + edit * (2 * field + 4) for edit in range(min(edits, 3)))
        ]
        return not starts or (starts[-1] >= 0 and (len(starts) == 1 or (len(starts) == 2 and starts[0] == -1)))

    def _read_table(self, name: bytes, first: int, last: int, depth: int, track: _Track) -> None:
        if name in (b"stts", b"ctts"):
            counts = self._table(first, 2)
            track.samples = max(track.samples, int(counts[:, 0].sum()))
            if name == b"ctts":
                track.uneven |= len(counts) > 0
            else:
                track.uneven |= track.times is not None or len(counts) > 2
                track.times = counts[:2].tolist()
                one_tick = len(counts) == 1 and int(counts[0, 1]) == 1
                track.one_tick_samples = one_tick and track.one_tick_samples is not False
        elif name == b"stsc":
            track.samples_per_chunk = max(track.samples_per_chunk, int(self._table(first, 3)[:, 1].max(initial=0)))
        elif name in (b"stco", b"co64"):
            track.chunks = max(track.chunks, self._u32(first + 4))
            check_count(track.chunks, self._limits.max_samples, "chunks in a track", "max_samples")
        elif name == b"stsd":
            self._read_entries(first + 8, last, depth + 1, track)

    def _read_sizes(self, name: bytes, first: int, last: int, track: _Track) -> None:
        count = self._u32(first + 8)
        track.samples = max(track.samples, count)
        bits = 32 if name == b"stsz" else self._data[first + 7] if first + 8 <= last else 0
        if name == b"stz2" or self._u32(first + 4) == 0:
            check_count(count, self._limits.max_samples, "samples in a track", "max_samples")
            check_room(count * bits // 8, last - first - 12, "a table of sample sizes")

    def _read_run(self, first: int, last: int) -> None:
        flags, count = self._u32(first) & 0xFFFFFF, self._u32(first + 4)
        self._fragment_samples += count
        allowed = _FRAGMENTS * self._limits.max_samples
        check_count(self._fragment_samples, allowed, "samples in fragments")
        fixed = 8 + sum(size for flag, size in _TRUN_FIRST.items() if flags & flag)
        each = 4 * sum(1 for flag in _TRUN_EACH if flags & flag)
        check_room(each * count, max(0, last - first - fixed), "a fragment's run of samples")

    def _read_entries(self, start: int, end: int, depth: int, track: _Track) -> None:
        """Sample descriptions: what they say themselves, and the boxes after their fixed part."""
        fixed = _SAMPLE_ENTRY_BYTES.get(track.handler)
        data = self._data
        while fixed is not None and start + fixed <= end:
            size, name = _HEADER(data, start)
            if size < fixed:
                return
            stop, head = min(end, start + size), fixed
            self._left[0] -= 1
            if track.handler == b"soun":
                head += _SOUND_VERSION_BYTES.get(int.from_bytes(data[start + 16 : start + 18], "big"), 0)
            track.codec = track.codec or name.decode("latin-1")
            codec, record = _WITH_RECORD.get(name.lower(), ("", b""))
            if codec and data.find(record, start + fixed, stop) < 0:
                self.bare.add(codec)
            self._describe(start, track)
            self.descend(start + head, stop, depth + 1, name)
            start = stop

    def _describe(self, entry: int, track: _Track) -> None:
        data = self._data
        if track.handler != b"soun":
            track.width = max(track.width, int.from_bytes(data[entry + 32 : entry + 34], "big"))
            track.height = max(track.height, int.from_bytes(data[entry + 34 : entry + 36], "big"))
        elif data[entry + 16 : entry + 18] == b"\0\2" and entry + 52 <= len(data):  # QuickTime's version 2
            rate = struct.unpack_from(">d", data, entry + 40)[0]
            track.sample_rate = int(rate) if 0 <= rate < 2**32 else 2**32
            track.channels = self._u32(entry + 48)
        else:
            track.channels = int.from_bytes(data[entry + 24 : entry + 26], "big")
            track.sample_rate = int.from_bytes(data[entry + 32 : entry + 34], "big")

    def _duration(self, first: int) -> float | None:
        """Of an ``mvhd`` or ``mdhd``, in seconds; ``None`` where it does not say."""
        at, size = (20, 8) if self._data[first : first + 1] == b"\1" else (12, 4)
        scale = self._u32(first + at)
        duration = int.from_bytes(self._data[first + at + 4 : first + at + 4 + size], "big")
        if scale == 0:
            raise CorruptMedia("a time scale is 0")
        return None if duration == _UNKNOWN[size] else seconds_of(duration, scale)

    def _table(self, first: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        flat = np.frombuffer(self._data, ">u4", self._u32(first + 4) * columns, first + 8)
        return flat.astype(np.int64).reshape(-1, columns)

    def _u32(self, position: int) -> int:
        return int.from_bytes(self._data[position : position + 4], "big")
