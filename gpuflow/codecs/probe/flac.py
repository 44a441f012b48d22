"""What a FLAC file claims: its metadata blocks. Source: RFC 9639."""

from __future__ import annotations

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims, check_count, check_room, seconds_of
from gpuflow.codecs.probe.id3 import skip_tags
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

STREAMINFO_BYTES = 34
_LEAST_BLOCK_SAMPLES = 16


def flac_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """STREAMINFO, and a walk over the blocks after it.

    Raises:
        CorruptMedia: no STREAMINFO, one that contradicts itself, or a block larger than the file.
        LimitExceeded: more blocks than allowed.
    """
    at = skip_tags(data)
    if not data.startswith(b"fLaC", at) or len(data) < at + 8 + STREAMINFO_BYTES or data[at + 4] & 0x7F:
        raise CorruptMedia("the FLAC does not begin with its STREAMINFO")
    track = stream_info(data, at + 8)
    at, count, is_last = at + 4, 0, False
    while not is_last:
        if at + 4 > len(data):
            raise CorruptMedia("the FLAC ends within its metadata")
        is_last, size = bool(data[at] & 0x80), int.from_bytes(data[at + 1 : at + 4], "big")
        check_room(size, len(data) - at - 4, "a FLAC metadata block")
        at, count = at + 4 + size, count + 1
        check_count(count, limits.max_boxes, "metadata blocks", "max_boxes")
    return ContainerClaims("flac", (track,), track.duration_seconds)


def stream_info(data: bytes, at: int) -> TrackClaims:
    """STREAMINFO's 34 bytes as claims; a length of 0 is one that is not known.

    Raises:
        CorruptMedia: it breaks off, or names no rate or no block size.
    """
    if len(data) < at + STREAMINFO_BYTES:
        raise CorruptMedia("the FLAC ends within its STREAMINFO")
    block = int.from_bytes(data[at + 2 : at + 4], "big")
    packed = int.from_bytes(data[at + 10 : at + 18], "big")
    rate, channels, samples = packed >> 44, 1 + (packed >> 41 & 7), packed & (1 << 36) - 1
    if rate == 0 or block < _LEAST_BLOCK_SAMPLES:
        raise CorruptMedia(f"the FLAC claims {rate} Hz in blocks of {block} samples")
    return TrackClaims(
        "audio",
        "flac",
        sample_rate=rate,
        channels=channels,
        num_samples=samples or None,
        duration_seconds=seconds_of(samples, rate),
    )
