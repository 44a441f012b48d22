"""What an ASF file (WMA) claims: the objects of its header. Source: Microsoft's Advanced Systems Format specification 1.20."""

from __future__ import annotations

import struct

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims, check_count, check_room, seconds_of
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

MAGIC = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_STREAM = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
_MARKERS = bytes.fromhex("01cd87f451a9cf118ee600c00c205365")
_ENCRYPTED = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
_SOUND = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
_PICTURES = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_OBJECT = struct.Struct("<16sQ").unpack_from
_OBJECT_BYTES = 24
_HEADER_BYTES = 30
_FILE_BYTES = 80
_STREAM_BYTES = 54
_EXTENSION_BYTES = 22
_MARKER_HEAD_BYTES = 24
_CODECS = {0x160: "wmav1", 0x161: "wmav2", 0x162: "wmapro", 0x163: "wmalossless", 0x55: "mp3"}


def asf_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The streams, and how long the file says that it plays.

    Raises:
        CorruptMedia: no ASF, an object larger than what holds it or smaller than its own head, no streams.
        LimitExceeded: too many objects, streams or markers.
        UnsupportedFormat: the file is encrypted.
    """
    if not data.startswith(MAGIC) or len(data) < _HEADER_BYTES:
        raise CorruptMedia("the bytes are no ASF")
    size = int.from_bytes(data[16:24], "little")
    check_room(size, len(data), "the ASF header")
    walk = _Walk(data, limits)
    walk.visit(_HEADER_BYTES, size)
    if not walk.tracks:
        raise CorruptMedia("the ASF describes no streams")
    return walk.claims()


class _Walk:
    def __init__(self, data: bytes, limits: Limits) -> None:
        self.tracks: list[TrackClaims] = []
        self._data = data
        self._limits = limits
        self._objects = 0
        self._seconds: float | None = None

    def visit(self, at: int, end: int) -> None:
        """The objects between; those of the header's extension are in it."""
        while at + _OBJECT_BYTES <= end:
            name, size = _OBJECT(self._data, at)
            self._objects += 1
            check_count(self._objects, self._limits.max_boxes, "objects", "max_boxes")
            if size < _OBJECT_BYTES:
                raise CorruptMedia(f"an ASF object claims {size} bytes: fewer than its own head has")
            check_room(size, end - at, "an ASF object")
            first = at + _OBJECT_BYTES
            if name == _EXTENSION:
                check_room(_EXTENSION_BYTES, size - _OBJECT_BYTES, "the header's extension")
                at = first + _EXTENSION_BYTES  # as libavformat: its objects follow, and then the others
                continue
            self._read(name, first, size - _OBJECT_BYTES)
            at += size

    def claims(self) -> ContainerClaims:
        """What was found."""
        return ContainerClaims("asf", tuple(self.tracks), self._seconds)

    def _read(self, name: bytes, first: int, size: int) -> None:
        data = self._data
        if name in _ENCRYPTED:
            raise UnsupportedFormat("this ASF is encrypted")
        if name == _FILE:
            check_room(_FILE_BYTES, size, "the file properties")
            ticks, preroll = struct.unpack_from("<Q8xQ", data, first + 40)
            self._seconds = seconds_of(ticks - 10_000 * preroll, 10_000_000)
            packet_bytes = struct.unpack_from("<I", data, first + 72)[0]
            check_room(packet_bytes, len(data), "a packet")
        elif name == _STREAM:
            check_room(_STREAM_BYTES, size, "the stream properties")
            self.tracks.append(self._stream(first, size))
            check_count(len(self.tracks), self._limits.max_tracks, "tracks", "max_tracks")
        elif name == _MARKERS and size >= _MARKER_HEAD_BYTES:
            check_count(struct.unpack_from("<I", data, first + 16)[0], self._limits.max_edits, "markers", "max_edits")

    def _stream(self, first: int, size: int) -> TrackClaims:
        data, at = self._data, first + _STREAM_BYTES
        kind, (length, correction) = data[first : first + 16], struct.unpack_from("<II", data, first + 40)
        check_room(length + correction, size - _STREAM_BYTES, "a stream's own properties")
        if kind == _SOUND:
            check_room(16, length, "a sound format")
            tag, channels, rate = struct.unpack_from("<HHI", data, at)
            codec = _CODECS.get(tag, f"{tag:#06x}")
            return TrackClaims("audio", codec, sample_rate=rate, channels=channels, duration_seconds=self._seconds)
        if kind == _PICTURES:
            check_room(11 + 40, length, "a picture format")
            width, height = struct.unpack_from("<II", data, at)
            return TrackClaims("video", data[at + 27 : at + 31].decode("latin-1"), width, height)
        return TrackClaims("other")
