"""What an Ogg file claims: its first pages, which describe the streams, and the position of its last.

Source: RFC 3533 (pages), Vorbis I, RFC 7845 (Opus), RFC 9639 section 10 (FLAC).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims, check_count, check_room, longest, seconds_of
from gpuflow.codecs.probe.flac import stream_info
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_PAGE = struct.Struct("<4sBBqIIIB").unpack_from
_PAGE_BYTES = 27
_BEGINS, _ENDS = 2, 4
_HEAD_PAGES = 64  # what describes the streams, and the first pages of their packets
_MAX_PAGE_BYTES = _PAGE_BYTES + 255 + 255 * 255
_OPUS_HZ = 48_000


def ogg_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The streams, each with the samples between its first and its last page.

    Raises:
        CorruptMedia: no page, a page of the beginning larger than the file, a stream header that is damaged.
        LimitExceeded: too many streams.
    """
    streams: dict[int, TrackClaims] = {}
    starts: dict[int, int] = {}
    for flags, position, serial, first, last in _pages(data):
        if flags & _BEGINS:
            streams[serial] = _stream(data[first:last])
            check_count(len(streams), limits.max_tracks, "tracks", "max_tracks")
        elif position > 0 and serial in streams:
            starts.setdefault(serial, position)
    if not streams:
        raise CorruptMedia("the Ogg describes no stream")
    ends = _last_positions(data)
    tracks = tuple(_with_length(track, starts.get(serial), ends.get(serial)) for serial, track in streams.items())
    return ContainerClaims("ogg", tracks, longest(tracks))


def position_before_last_page(data: bytes) -> int:
    """How far the pages before the last one reach, in samples of the stream that ends the file; 0 where that is not known."""
    found: list[tuple[int, int]] = []
    at = len(data)
    while len(found) < 2 and (at := data.rfind(b"OggS", max(0, len(data) - 4 * _MAX_PAGE_BYTES), at)) >= 0:
        if at + _PAGE_BYTES <= len(data):
            _, _, _, position, serial, _, _, _ = _PAGE(data, at)
            if position > 0 and (not found or serial == found[0][0]):
                found.append((serial, position))
    return found[1][1] if len(found) == 2 else 0


def ends(data: bytes) -> bool:
    """Whether the last page is whole and says that it is the last: else the recording breaks off."""
    at = data.rfind(b"OggS")
    if at < 0 or at + _PAGE_BYTES > len(data):
        return False
    _, _, flags, _, _, _, _, segments = _PAGE(data, at)
    first = at + _PAGE_BYTES + segments
    return bool(flags & _ENDS) and first + sum(data[at + _PAGE_BYTES : first]) <= len(data)


def _pages(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """``(flags, position, serial, first byte of the body, end)`` of the first pages; a later one may break off."""
    at = 0
    for count in range(_HEAD_PAGES):
        if at + _PAGE_BYTES > len(data):
            return
        magic, version, flags, position, serial, _, _, segments = _PAGE(data, at)
        if magic != b"OggS" or version != 0:
            if count == 0:
                raise CorruptMedia("the file does not begin with an Ogg page")
            return
        first = at + _PAGE_BYTES + segments
        size = sum(data[at + _PAGE_BYTES : first])
        if flags & _BEGINS or count == 0:
            check_room(size, len(data) - first, "an Ogg page")
        at = first + size
        yield flags, position, serial, first, at


def _stream(packet: bytes) -> TrackClaims:
    """The first packet of a stream."""
    if packet.startswith(b"\x01vorbis"):
        return _sound("vorbis", packet[11:12], packet[12:16])
    if packet.startswith(b"OpusHead"):
        return replace(_sound("opus", packet[9:10], packet[12:16] or b"\0"), sample_rate=_OPUS_HZ)
    if packet.startswith(b"Speex   "):
        return _sound("speex", packet[48:52], packet[36:40])
    if packet.startswith(b"\x7fFLAC"):
        return replace(stream_info(packet, 17), num_samples=None, duration_seconds=None)
    if packet.startswith(b"\x80theora") and len(packet) >= 20:
        width, height = (int.from_bytes(packet[at : at + 3], "big") for at in (14, 17))
        return TrackClaims("video", "theora", width, height)
    return TrackClaims("other")


def _sound(codec: str, channels: bytes, rate: bytes) -> TrackClaims:
    count, hertz = int.from_bytes(channels, "little"), int.from_bytes(rate, "little")
    if count == 0 or (hertz == 0 and codec != "opus"):
        raise CorruptMedia(f"the Ogg's {codec} header claims {count} channels at {hertz} Hz")
    return TrackClaims("audio", codec, sample_rate=hertz, channels=count)


def _last_positions(data: bytes) -> dict[int, int]:
    """By stream: the position on its last page, of the pages that begin in the file's last 64 KiB."""
    found: dict[int, int] = {}
    at = len(data)
    for _ in range(_HEAD_PAGES):
        at = data.rfind(b"OggS", max(0, len(data) - _MAX_PAGE_BYTES), at)
        if at < 0:
            break
        if at + _PAGE_BYTES <= len(data):
            _, _, _, position, serial, _, _, _ = _PAGE(data, at)
            if position > 0:
                found.setdefault(serial, position)
    return found


def _with_length(track: TrackClaims, start: int | None, end: int | None) -> TrackClaims:
    if track.kind != "audio" or end is None:
        return track
    samples = max(0, end - (_silence_before(start, track.sample_rate) if start != end else 0))
    return replace(track, num_samples=samples, duration_seconds=seconds_of(samples, track.sample_rate))


def _silence_before(start: int | None, rate: int) -> int:
    """Where a recording of a running broadcast begins; 0 for a file, whose first page holds a few seconds at most."""
    return start if start is not None and start > 10 * rate else 0
