"""What an AMR file claims: its frames, each 20 ms, one after another. Source: RFC 4867, section 5."""

from __future__ import annotations

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

MAGIC = b"#!AMR"
_NARROW, _WIDE = b"#!AMR\n", b"#!AMR-WB\n"
_FRAMES_PER_SECOND = 50
# Bytes of a frame with its head, by the mode there
_NARROW_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
_WIDE_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)


def amr_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """One track, and how long it lasts: a frame without sound takes one byte, 25 MB of them five days.

    Raises:
        CorruptMedia: no AMR, or not one frame.
        UnsupportedFormat: several channels, which libavformat does not read.
    """
    wide = data.startswith(_WIDE)
    if not wide and not data.startswith(_NARROW):
        if data.startswith(MAGIC):
            raise UnsupportedFormat("AMR of several channels is not read")
        raise CorruptMedia("the bytes are no AMR")
    sizes, at, frames = (_WIDE_BYTES, len(_WIDE), 0) if wide else (_NARROW_BYTES, len(_NARROW), 0)
    most = int(limits.max_audio_seconds * _FRAMES_PER_SECOND) + 1
    while at < len(data) and frames < most:
        at += sizes[data[at] >> 3 & 15]
        frames += 1
    if frames == 0:
        raise CorruptMedia("the AMR holds no frame")
    rate = 16_000 if wide else 8_000
    seconds = frames / _FRAMES_PER_SECOND
    track = TrackClaims("audio", "amr_wb" if wide else "amr_nb", sample_rate=rate, channels=1, duration_seconds=seconds)
    return ContainerClaims("amr", (track,), seconds)
