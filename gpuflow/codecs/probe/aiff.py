"""What an AIFF or AIFF-C claims: the chunks of its FORM. Source: Apple's AIFF 1.3 and AIFF-C specifications."""

from __future__ import annotations

import math
import struct

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims, check_room, seconds_of
from gpuflow.codecs.probe.riff import chunks
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_HEADER = struct.Struct(">4sI")
_COMMON = struct.Struct(">HIHHQ").unpack_from
_COMMON_BYTES = 18
_COUNTED = (b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64", b"ulaw", b"alaw")
_EXPONENT_BIAS = 16_383 + 63


def aiff_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The common chunk, which may stand behind the samples.

    Raises:
        CorruptMedia: no AIFF, no common chunk or one that breaks off, no samples, no channels, or a rate that is none.
        LimitExceeded: more chunks than allowed.
    """
    if data[:4] != b"FORM" or data[8:12] not in (b"AIFF", b"AIFC"):
        raise CorruptMedia("the bytes are no AIFF")
    track, has_samples = None, False
    for name, first, size in chunks(data, 12, len(data), limits, header=_HEADER):
        if name == b"COMM":
            check_room(size, len(data) - first, "the common chunk")
            track = _common(data, first, size, compressed=data[8:12] == b"AIFC")
        has_samples |= name == b"SSND"
    if track is None or not has_samples:
        raise CorruptMedia("the AIFF has no common chunk, or no samples")
    return ContainerClaims("aiff", (track,), track.duration_seconds)


def _common(data: bytes, first: int, size: int, *, compressed: bool) -> TrackClaims:
    if size < _COMMON_BYTES + 4 * compressed:
        raise CorruptMedia(f"the AIFF's common chunk has {size} bytes; {_COMMON_BYTES} is the least")
    channels, frames, _, exponent, mantissa = _COMMON(data, first)
    rate = _hertz(exponent, mantissa)
    if channels == 0 or rate == 0:
        raise CorruptMedia(f"the AIFF claims {channels} channels at {rate} Hz")
    form = data[first + 18 : first + 22] if compressed else b"NONE"
    frames = frames if form in _COUNTED else 0  # of what is compressed the header counts packets
    return TrackClaims(
        "audio",
        form.decode("latin-1"),
        sample_rate=rate,
        channels=channels,
        num_samples=frames or None,
        duration_seconds=seconds_of(frames, rate),
    )


def _hertz(exponent: int, mantissa: int) -> int:
    """Of a float of 80 bits; 2**32 of what is beyond any rate."""
    power = (exponent & 0x7FFF) - _EXPONENT_BIAS
    if exponent & 0x8000 or mantissa == 0:
        return 0
    return int(math.ldexp(mantissa, power)) if power < 0 and mantissa.bit_length() + power < 32 else 1 << 32
