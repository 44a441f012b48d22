"""What WAV and AVI files claim: the chunks of a RIFF file, RF64 included.

Source: Multimedia Programming Interface 1.0 (RIFF, WAVE), EBU Tech 3306 (RF64), the AVI and OpenDML references.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims, check_count, check_room, longest, seconds_of
from gpuflow.codecs.probe.elementary import check_units
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_HEADER = struct.Struct("<4sI")
_OPEN = (0, 0xFFFFFFFF)  # the size of data whose writer could not go back
_EXTENSIBLE = 0xFFFE
_PLAIN = {1: "pcm", 3: "float", 6: "alaw", 7: "mulaw"}  # formats of a fixed number of bytes a sample
_MAX_BITS = 64
_CHUNK_BYTES = 8
_WITH_UNITS = dict.fromkeys(("h264", "x264", "avc1", "davc", "vssh", "q264", "v264", "gavc"), "h264") | dict.fromkeys(
    ("hevc", "h265", "x265", "hm10"), "hevc"
)
_LISTS = (b"hdrl", b"strl", b"odml")  # whose chunks are looked at


def wav_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The format and the data chunk.

    Raises:
        CorruptMedia: no WAV, or a format or data chunk that is missing, too short or contradicts itself.
        LimitExceeded: more chunks than allowed.
    """
    samples = wave_samples(data, limits)
    return samples.format.claims(samples.nbytes)


def wave_samples(data: bytes, limits: Limits) -> WaveSamples:
    """The first data chunk, and the format before it; raises what ``wav_claims`` does."""
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        raise CorruptMedia("the bytes are no WAV")
    sound, long_bytes = None, 0
    for name, first, size in chunks(data, 12, len(data), limits):
        if name == b"ds64":
            check_room(size, len(data) - first, "the ds64 chunk")
            long_bytes = int.from_bytes(data[first + 8 : first + 16], "little")
        elif name == b"fmt ":
            check_room(size, len(data) - first, "the format chunk")
            sound = _wave_format(data, first, size)
        elif name == b"data":
            if sound is None:
                raise CorruptMedia("the WAV has no format before its samples")
            there = len(data) - first
            claimed = long_bytes if size == _OPEN[1] and long_bytes else there if size in _OPEN else size
            return WaveSamples(sound, first, min(claimed, there))
    raise CorruptMedia("the WAV ends before its samples")


def avi_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The header lists; the media themselves are stepped over.

    Raises:
        CorruptMedia: no AVI, no stream header, a header chunk larger than its list, an index larger than its chunk.
        LimitExceeded: too many streams, chunks or claimed pictures.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"AVI ":
        raise CorruptMedia("the bytes are no AVI")
    walk = _AviWalk(data, limits)
    walk.visit(12, len(data), 1)
    if not walk.tracks:
        raise CorruptMedia("the AVI describes no streams")
    tracks = tuple(walk.tracks)
    check_units(data, [_WITH_UNITS[name] for track in tracks if (name := track.codec.lower()) in _WITH_UNITS])
    return ContainerClaims("avi", tracks, longest(tracks))


def chunks(
    data: bytes, at: int, end: int, limits: Limits, *, header: struct.Struct = _HEADER
) -> Iterator[tuple[bytes, int, int]]:
    """``(name, first byte of the body, claimed size)``; AIFF's are the same with a header of their own.

    Raises:
        LimitExceeded: more of them than allowed.
    """
    count = 0
    while at + 8 <= end:
        name, size = header.unpack_from(data, at)
        yield name, at + 8, size
        at += 8 + size + (size & 1)
        count += 1
        if count > limits.max_boxes:
            check_count(count, limits.max_boxes, "chunks", "max_boxes")


def _wave_format(data: bytes, first: int, size: int) -> WaveFormat:
    """A WAVEFORMATEX."""
    if size < 14:
        raise CorruptMedia(f"the WAV's format chunk has {size} bytes; 14 is the least")
    tag, channels, rate, per_second, align = struct.unpack_from("<HHIIH", data, first)
    bits = int.from_bytes(data[first + 14 : first + 16], "little") if size >= 16 else 8
    if tag == _EXTENSIBLE:
        if size < 40:
            raise CorruptMedia(f"an extensible WAV format has {size} bytes; 40 is the least")
        tag = int.from_bytes(data[first + 24 : first + 26], "little")
    if channels == 0 or rate == 0:
        raise CorruptMedia(f"the WAV claims {channels} channels at {rate} Hz")
    if tag in _PLAIN and not (0 < bits <= _MAX_BITS and align >= channels * ((bits + 7) // 8)):
        raise CorruptMedia(f"the WAV claims {bits} bits of {channels} channels in {align} bytes")
    return WaveFormat(tag, channels, rate, per_second, align, bits)


@dataclass(frozen=True, slots=True)
class WaveFormat:
    """A WAVEFORMATEX; of an extensible one ``tag`` is that of its subformat."""

    tag: int
    channels: int
    rate: int
    bytes_per_second: int
    align: int
    bits: int

    def claims(self, nbytes: int) -> ContainerClaims:
        """With a length by the bytes: by those of a sample, or of a second where samples are compressed."""
        samples = nbytes // self.align if self.tag in _PLAIN else None
        seconds = seconds_of(nbytes, self.bytes_per_second) if samples is None else seconds_of(samples, self.rate)
        codec = _PLAIN.get(self.tag, f"{self.tag:#06x}")
        track = TrackClaims(
            "audio",
            codec,
            sample_rate=self.rate,
            channels=self.channels,
            num_samples=samples,
            duration_seconds=seconds,
        )
        return ContainerClaims("wav", (track,), seconds)


@dataclass(frozen=True, slots=True)
class WaveSamples:
    """Where the samples of a WAV lie, as many bytes of them as there are."""

    format: WaveFormat
    offset: int
    nbytes: int


class _AviWalk:
    def __init__(self, data: bytes, limits: Limits) -> None:
        self.tracks: list[TrackClaims] = []
        self._data = data
        self._limits = limits
        self._chunks = 0

    def visit(self, at: int, end: int, level: int) -> None:
        """Visit chunks; lists of headers are entered and must hold what they claim, the rest may break off."""
        data, limits = self._data, self._limits
        while at + 8 <= end:
            name, size = _HEADER.unpack_from(data, at)
            self._chunks += 1
            check_count(self._chunks, limits.max_boxes, "chunks", "max_boxes")
            if level > 1:
                check_room(size, end - at - 8, "a header chunk")
            if name == b"LIST" and data[at + 8 : at + 12] in _LISTS:
                check_count(level, limits.max_box_depth, "levels of lists", "max_box_depth")
                check_room(size, end - at - 8, "a list of headers")
                self.visit(at + 12, at + 8 + size, level + 1)
            elif level > 1:
                self._read(name, at + 8, size)
            at += 8 + size + (size & 1)

    def _read(self, name: bytes, first: int, size: int) -> None:
        if name == b"strh":
            check_room(48, size, "a stream header")
            self.tracks.append(self._stream(first))
            check_count(len(self.tracks), self._limits.max_tracks, "tracks", "max_tracks")
        elif name == b"strf" and self.tracks:
            self.tracks[-1] = self._format(self.tracks[-1], first, size)
        elif name == b"indx" and size >= 24:
            words = int.from_bytes(self._data[first : first + 2], "little")
            check_room(4 * words * self._u32(first + 4), size - 24, "an index")

    def _stream(self, first: int) -> TrackClaims:
        kind, scale, rate, length = self._data[first : first + 4], *struct.unpack_from("<II4xI", self._data, first + 20)
        if kind == b"vids":
            # A writer that cannot go back leaves 2^30; no picture takes less than a chunk's header
            known = length if length <= len(self._data) // _CHUNK_BYTES else None
            check_count(known or 0, self._limits.max_samples, "pictures in a track", "max_samples")
            seconds = seconds_of((known or 0) * scale, rate)
            return TrackClaims("video", self._code(first + 4), num_samples=known, duration_seconds=seconds)
        if kind == b"auds":
            return TrackClaims("audio", duration_seconds=seconds_of(length * scale, rate))
        return TrackClaims("other")

    def _format(self, track: TrackClaims, first: int, size: int) -> TrackClaims:
        data = self._data
        if track.kind == "video":
            check_room(40, size, "a picture format")
            width, height = struct.unpack_from("<ii", data, first + 4)
            return replace(track, codec=self._code(first + 16), width=abs(width), height=abs(height))
        if track.kind == "audio":
            check_room(14, size, "a sound format")
            tag, channels, rate = struct.unpack_from("<HHI", data, first)
            return replace(track, codec=f"{tag:#06x}", sample_rate=rate, channels=channels)
        return track

    def _code(self, at: int) -> str:
        return self._data[at : at + 4].decode("latin-1")

    def _u32(self, at: int) -> int:
        return int.from_bytes(self._data[at : at + 4], "little")
