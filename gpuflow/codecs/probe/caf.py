"""What a CAF of plain samples claims. Source: Apple's Core Audio Format specification 1.0."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims, check_count, check_room, seconds_of
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_HEADER = struct.Struct(">4sQ").unpack_from
_DESCRIPTION = struct.Struct(">d4sIIIII").unpack_from
_DESCRIPTION_BYTES = 32
_EDIT_COUNT_BYTES = 4
_OPEN = (1 << 64) - 1  # the size of data whose writer could not go back
_PLAIN = (b"lpcm", b"ulaw", b"alaw")


def caf_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The description, and as many samples as the bytes hold.

    Raises:
        CorruptMedia: no CAF, no description before the samples, one without channels or rate, or a chunk larger than the
            file.
        UnsupportedFormat: compressed sound. libavformat loses the end of ALAC in CAF; libsndfile's ALAC, when it wrote 12 s
            of 24 bits, overran its memory.
        LimitExceeded: more chunks than allowed.
    """
    if data[:6] != b"caff\0\1":
        raise CorruptMedia("the bytes are no CAF")
    described = None
    for count, (name, first, size) in enumerate(_chunks(data), 1):
        check_count(count, limits.max_boxes, "chunks", "max_boxes")
        room = len(data) - first
        if name == b"data" and described is not None:
            return _claims(described, room if size == _OPEN else min(size, room))
        check_room(size, room, "a CAF chunk")
        if name == b"desc":
            described = _description(data, first, size)
    raise CorruptMedia("the CAF ends before its samples")


def of_true_size(data: bytes) -> bytes:
    """The same, but that samples that break off are as many as there are: libsndfile opens no other CAF."""
    first, size = next(((first, size) for name, first, size in _chunks(data) if name == b"data"), (0, _OPEN))
    room = len(data) - first
    if size <= room or size == _OPEN:
        return data
    return data[: first - 8] + room.to_bytes(8, "big") + data[first:]


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """``(name, first byte of the body, claimed size)``."""
    at = 8
    while at + 12 <= len(data):
        name, size = _HEADER(data, at)
        yield name, at + 12, size
        at += 12 + size


def _description(data: bytes, first: int, size: int) -> tuple[str, int, int, int]:
    """Format, rate, channels, and bytes of a sample of all of them."""
    if size < _DESCRIPTION_BYTES:
        raise CorruptMedia(f"the CAF's description has {size} bytes; {_DESCRIPTION_BYTES} is the least")
    rate, name, _, nbytes, _, channels, _ = _DESCRIPTION(data, first)
    hertz = int(rate) if 0 <= rate < 2**32 else 2**32  # also no number
    if name not in _PLAIN:
        raise UnsupportedFormat("CAF is read with PCM, mu-law and A-law: send other sound as M4A")
    if channels == 0 or hertz == 0 or nbytes == 0:
        raise CorruptMedia(f"the CAF claims {channels} channels at {rate:g} Hz, in {nbytes} bytes")
    return name.decode("latin-1"), hertz, channels, nbytes


def _claims(described: tuple[str, int, int, int], nbytes: int) -> ContainerClaims:
    codec, rate, channels, each = described
    samples = max(0, nbytes - _EDIT_COUNT_BYTES) // each
    seconds = seconds_of(samples, rate)
    track = TrackClaims(
        "audio", codec, sample_rate=rate, channels=channels, num_samples=samples, duration_seconds=seconds
    )
    return ContainerClaims("caf", (track,), seconds)
