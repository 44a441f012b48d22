"""How large the pictures of an HEVC stream are by its parameter sets: its decoder allocates by these, not by a box.

Source: ITU-T H.265 7.3.2.2.1 and 7.3.3; ISO/IEC 14496-15 8.3.2.1 (the record).
"""

from __future__ import annotations

from collections.abc import Iterator

from gpuflow.codecs.probe.claims import check_count
from gpuflow.errors import CorruptMedia

RECORD_BYTES = 23
_SPS = 33
_MAX_SETS = 64
_SIZE_BYTES = 256  # the sizes stand within them
_PROFILE_BITS, _LEVEL_BITS = 88, 8
_PARTS = 3  # planes of one colour each, coded apart


def picture_sizes(record: memoryview) -> Iterator[tuple[int, int]]:
    """Width and height by each of the record's sequence parameter sets.

    Raises:
        CorruptMedia: it breaks off, or holds very many.
    """
    at, arrays = RECORD_BYTES, record[RECORD_BYTES - 1]
    for _ in range(arrays):
        kind, count = record[at] & 63, int.from_bytes(record[at + 1 : at + 3], "big")
        if count > _MAX_SETS:
            raise CorruptMedia(f"the HEVC record claims {count} parameter sets of one kind")
        at += 3
        for _ in range(count):
            length = int.from_bytes(record[at : at + 2], "big")
            if kind == _SPS:
                yield _size(bytes(record[at + 2 : at + 2 + min(length, _SIZE_BYTES)]))
            at += 2 + length


def check_units(payload: bytes, length_bytes: int, most: int) -> int:
    """Refuse a picture that brings parameter sets of its own: those of ``hvc1`` lie in the record. Returns its units.

    Raises:
        CorruptMedia: it does.
        LimitExceeded: more units than ``most``.
    """
    at = units = 0
    while at + length_bytes < len(payload):
        units += 1
        check_count(units, most, "units in a picture")
        size = int.from_bytes(payload[at : at + length_bytes], "big")
        if payload[at + length_bytes] >> 1 & 63 == _SPS:
            raise CorruptMedia("a picture of the HEIC brings a parameter set of its own")
        at += length_bytes + size
    return units


def _size(unit: bytes) -> tuple[int, int]:
    bits = _Bits(unit[2:_SIZE_BYTES].replace(b"\0\0\3", b"\0\0"))
    bits.read(4)
    layers = bits.read(3)
    bits.read(1 + _PROFILE_BITS + _LEVEL_BITS)
    if layers:
        flags = [(bits.read(1), bits.read(1)) for _ in range(layers)]
        bits.read(2 * (8 - layers))
        for has_profile, has_level in flags:
            bits.read(_PROFILE_BITS * has_profile + _LEVEL_BITS * has_level)
    bits.golomb()
    if bits.golomb() == _PARTS:
        bits.read(1)
    return bits.golomb(), bits.golomb()


class _Bits:
    """Reads bits, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """An unsigned number of so many bits."""
        self._left -= count
        if self._left < 0:
            raise CorruptMedia("an HEVC parameter set breaks off")
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """A number with as many zeros before it as it has bits, less one."""
        zeros = 0
        while self.read(1) == 0:
            zeros += 1
            if zeros > 32:
                raise CorruptMedia("an HEVC parameter set holds a number of more than 32 bits")
        return (1 << zeros) - 1 + self.read(zeros)
