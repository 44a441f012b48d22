"""What AC-3 and E-AC-3 claim: the header of a frame; neither has a header for the file. Source: ATSC A/52, 5.3 and annex E."""

from __future__ import annotations

from dataclasses import dataclass

from gpuflow.codecs.probe.claims import ContainerClaims, TrackClaims
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia

_SYNC = b"\x0b\x77"
_HEAD_BYTES = 8
_RATES_HZ = (48_000, 44_100, 32_000)
_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_CHANNELS = (2, 1, 2, 3, 3, 4, 4, 5)
_LAST_AC3, _FIRST_EAC3, _LAST_EAC3 = 10, 11, 16


@dataclass(frozen=True, slots=True)
class _Frame:
    codec: str
    nbytes: int
    rate: int
    channels: int


def ac3_format(data: bytes, at: int = 0) -> str:
    """``"ac3"`` or ``"eac3"``, which is also the demuxer, where a frame of it and another, or the end, begin; else ``""``."""
    frame = _frame(data, at)
    if frame is None:
        return ""
    after = _frame(data, at + frame.nbytes)
    follows = after is not None and (after.codec, after.rate) == (frame.codec, frame.rate)
    return frame.codec if follows or at + frame.nbytes == len(data) else ""


def ac3_claims(data: bytes, limits: Limits) -> ContainerClaims:
    """The first frame. Its header has no length; nor has the file.

    Raises:
        CorruptMedia: two frames do not begin it.
    """
    frame = _frame(data, 0)
    if frame is None or not ac3_format(data):
        raise CorruptMedia("the bytes are no AC-3 frames")
    track = TrackClaims("audio", frame.codec, sample_rate=frame.rate, channels=frame.channels)
    return ContainerClaims(frame.codec, (track,))


def _frame(data: bytes, at: int) -> _Frame | None:
    if data[at : at + 2] != _SYNC or len(data) < at + _HEAD_BYTES:
        return None
    version = data[at + 5] >> 3
    if version <= _LAST_AC3:
        return _ac3(data, at, version)
    return _eac3(data, at) if _FIRST_EAC3 <= version <= _LAST_EAC3 else None


def _ac3(data: bytes, at: int, version: int) -> _Frame | None:
    rate, size = data[at + 4] >> 6, data[at + 4] & 63
    if rate == 3 or size >= 2 * len(_KBPS):
        return None
    kbps, hertz = _KBPS[size >> 1], _RATES_HZ[rate]
    words = 96_000 * kbps // hertz + (size & 1 if rate == 1 else 0)  # of 1,536 samples, 16 bits each
    bits = int.from_bytes(data[at + 6 : at + 8], "big")
    mode = bits >> 13
    mixes = 2 * (mode & 1 and mode != 1) + 2 * (mode & 4 > 0) + 2 * (mode == 2)
    return _Frame("ac3", 2 * words, hertz >> max(0, version - 8), _CHANNELS[mode] + (bits >> (12 - mixes) & 1))


def _eac3(data: bytes, at: int) -> _Frame | None:
    rate, mode = data[at + 4] >> 6, data[at + 4] >> 1 & 7
    halved = data[at + 4] >> 4 & 3
    if rate == 3 and halved == 3:
        return None
    hertz = _RATES_HZ[rate] if rate < 3 else _RATES_HZ[halved] // 2
    words = 1 + ((data[at + 2] & 7) << 8 | data[at + 3])
    return _Frame("eac3", 2 * words, hertz, _CHANNELS[mode] + (data[at + 4] & 1))
