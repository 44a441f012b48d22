"""MPEG formats without a magic number: MPEG audio frames, ADTS frames and transport streams."""

from __future__ import annotations

from dataclasses import dataclass

_TS_SYNC = 0x47
_TS_PACKETS = 5
_TS_LEAST = 3  # two tables and one packet of media
_BITRATES = {  # kbit/s by (MPEG-1?, layer). Source: ISO 11172-3 2.4.2.3 and ISO 13818-3
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44_100, 48_000, 32_000)
_ADTS_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_RATE_DIVISORS = {3: 1, 2: 2, 0: 4}  # MPEG-1, MPEG-2, MPEG-2.5


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """What the header of one MPEG audio or ADTS frame says. ``channels``: 0 where the stream itself says it."""

    hertz: int
    channels: int
    samples: int
    layer: int = 0
    is_mpeg1: bool = False


def mpeg_frame(data: bytes, at: int) -> AudioFrame | None:
    """The MPEG audio frame whose header stands at ``at``."""
    if _frame_bytes(data, at) == 0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    hertz = _RATES_HZ[data[at + 2] >> 2 & 3] // _RATE_DIVISORS[version]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1_152
    return AudioFrame(hertz, 1 if data[at + 3] >> 6 == 3 else 2, samples, layer, version == 3)


def adts_frame(data: bytes, at: int) -> AudioFrame | None:
    """The ADTS frame whose header stands at ``at``."""
    if _adts_bytes(data, at) == 0:
        return None
    channels = (data[at + 2] & 1) << 2 | data[at + 3] >> 6
    return AudioFrame(_ADTS_RATES_HZ[data[at + 2] >> 2 & 15], 8 if channels == 7 else channels, 1_024)


def is_mpeg_audio(data: bytes, start: int) -> bool:
    """Whether a whole frame begins at ``start`` and another of the same kind, an ID3v1 tag or the end follows it."""
    length = _frame_bytes(data, start)
    if length == 0:
        return False
    after = start + length
    if after == len(data) or data.startswith(b"TAG", after):
        return True
    return _frame_bytes(data, after) > 0 and _family(data, after) == _family(data, start)


def is_adts(data: bytes, start: int) -> bool:
    """Whether a whole ADTS frame begins at ``start`` and another with the same header, or the end, follows it."""
    length = _adts_bytes(data, start)
    after = start + length
    if length == 0 or after == len(data):
        return length > 0
    return _adts_bytes(data, after) > 0 and data[after + 1] == data[start + 1]


def is_transport_stream(data: bytes) -> bool:
    """Whether sync bytes stand 188 (TS) or 192 (M2TS) bytes apart, for five packets or as many as there are."""
    return _synchronised(data, 0, 188) or _synchronised(data, 4, 192)


def _synchronised(data: bytes, start: int, packet_bytes: int) -> bool:
    places = range(start, min(len(data), start + _TS_PACKETS * packet_bytes), packet_bytes)
    return len(places) >= _TS_LEAST and all(data[at] == _TS_SYNC for at in places)


def _family(data: bytes, at: int) -> tuple[int, int]:
    """Version, layer, and sample rate: they never change within a stream; bitrate, padding and mode may."""
    return data[at + 1] & 0x1E, data[at + 2] & 0x0C


def _frame_bytes(data: bytes, at: int) -> int:
    """Length of the MPEG audio frame whose header stands at ``at``; 0 where none does."""
    if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return 0
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    bitrate, rate, padding = data[at + 2] >> 4, data[at + 2] >> 2 & 3, data[at + 2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3 or data[at + 3] & 3 == 2:
        return 0
    bits = 1_000 * _BITRATES[version == 3, layer][bitrate - 1]
    hertz = _RATES_HZ[rate] // _RATE_DIVISORS[version]
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding


def _adts_bytes(data: bytes, at: int) -> int:
    """Length of the ADTS frame at ``at``; 0 where none begins."""
    if len(data) < at + 7 or data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0 or data[at + 2] >> 2 & 15 > 12:
        return 0
    length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
    return length if length > 7 else 0
