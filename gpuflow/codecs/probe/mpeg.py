"""MPEG formats without a magic number: MPEG audio and ADTS frames, transport streams, and the ID3 tag before them."""

from __future__ import annotations

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
_RATE_DIVISORS = {3: 1, 2: 2, 0: 4}  # MPEG-1, MPEG-2, MPEG-2.5


def skip_id3(data: bytes) -> int:
    """Where the bytes after an ID3v2 tag begin; 0 without one."""
    if not data.startswith(b"ID3") or len(data) < 10 or any(byte & 0x80 for byte in data[6:10]):
        return 0
    size = (data[6] << 21) | (data[7] << 14) | (data[8] << 7) | data[9]
    return 10 + size


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
