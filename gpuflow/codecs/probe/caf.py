"""What a CAF claims: its description and its packet table. Source: Apple's Core Audio Format specification 1.0."""

from __future__ import annotations

import struct

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims, check_count, check_room, seconds_of
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_HEADER = struct.Struct(">4sQ").unpack_from
_DESCRIPTION = struct.Struct(">d4sIIIII").unpack_from
_DESCRIPTION_BYTES = 32
_TABLE_BYTES = 24
_OPEN = (1 << 64) - 1  # the size of data whose writer could not go back


def caf_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The description, and a length by the packet table, or by the bytes where packets are alike.

    Raises:
        CorruptMedia: no CAF, no description, one without channels or rate, or a chunk larger than the file.
        LimitExceeded: too many chunks or packets.
    """
    if data[:6] != b"caff\0\1":
        raise CorruptMedia("the bytes are no CAF")
    walk, at, count = _Walk(limits), 8, 0
    while at + 12 <= len(data):
        name, size = _HEADER(data, at)
        at, count, room = at + 12, count + 1, len(data) - at - 12
        if count > limits.max_boxes:
            check_count(count, limits.max_boxes, "chunks", "max_boxes")
        if name == b"data":
            size = room if size == _OPEN else min(size, room)
        check_room(size, room, "a CAF chunk")
        walk.read(name, data, at, size)
        at += size
    return walk.claims()


class _Walk:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._track: TrackClaims | None = None
        self._packet_bytes = self._packet_samples = self._data_bytes = 0
        self._samples: int | None = None

    def read(self, name: bytes, data: bytes, first: int, size: int) -> None:
        if name == b"desc":
            self._describe(data, first, size)
        elif name == b"data":
            self._data_bytes = max(0, size - 4)
        elif name == b"pakt" and size >= _TABLE_BYTES:
            packets, samples = struct.unpack_from(">QQ", data, first)
            check_count(packets, self._limits.max_samples, "packets", "max_samples")
            check_room(packets if self._packet_bytes == 0 else 0, size - _TABLE_BYTES, "the packet table")
            self._samples = samples

    def claims(self) -> ContainerClaims:
        """What was found."""
        if self._track is None:
            raise CorruptMedia("the CAF has no description")
        samples, track = self._samples, self._track
        if samples is None and self._packet_bytes:
            samples = self._data_bytes // self._packet_bytes * self._packet_samples
        seconds = seconds_of(samples or 0, track.sample_rate)
        found = TrackClaims(
            "audio",
            track.codec,
            sample_rate=track.sample_rate,
            channels=track.channels,
            num_samples=samples,
            duration_seconds=seconds,
        )
        return ContainerClaims("caf", (found,), seconds)

    def _describe(self, data: bytes, first: int, size: int) -> None:
        if size < _DESCRIPTION_BYTES:
            raise CorruptMedia(f"the CAF's description has {size} bytes; {_DESCRIPTION_BYTES} is the least")
        rate, name, _, packet_bytes, packet_samples, channels, _ = _DESCRIPTION(data, first)
        hertz = int(rate) if 0 <= rate < 2**32 else 2**32  # also no number
        if channels == 0 or hertz == 0:
            raise CorruptMedia(f"the CAF claims {channels} channels at {rate:g} Hz")
        self._packet_bytes, self._packet_samples = packet_bytes, packet_samples
        self._track = TrackClaims("audio", name.decode("latin-1"), sample_rate=hertz, channels=channels)
