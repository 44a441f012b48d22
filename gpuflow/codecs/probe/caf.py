"""What a CAF of plain samples claims. Source: Apple's Core Audio Format specification 1.0."""

from __future__ import annotations

import struct

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
    at, count, described = 8, 0, None
    while at + 12 <= len(data):
        name, size = _HEADER(data, at)
        at, count, room = at + 12, count + 1, len(data) - at - 12
        if count > limits.max_boxes:
            check_count(count, limits.max_boxes, "chunks", "max_boxes")
        if name == b"data" and described is not None:
            return _claims(described, room if size == _OPEN else min(size, room))
        check_room(size, room, "a CAF chunk")
        if name == b"desc":
            described = _description(data, at, size)
        at += size
    raise CorruptMedia("the CAF ends before its samples")


def of_true_size(data: bytes) -> bytes:
    """The same, but that samples that break off are as many as there are: libsndfile opens no other CAF."""
    at = 8
    while at + 12 <= len(data):
        name, size = _HEADER(data, at)
        room = len(data) - at - 12
        if name == b"data":
            whole = size <= room or size == _OPEN
            return data if whole else data[: at + 4] + room.to_bytes(8, "big") + data[at + 12 :]
        at += 12 + size
    return data


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
