"""The layout of AV1: its units (OBUs) and its sequence header, as much of it as frame headers depend on.

Source: AV1 Bitstream and Decoding Process Specification, sections 5.3 (OBU) and 5.5 (sequence).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SEQUENCE, DELIMITER, FRAME_HEADER, TILES, METADATA, FRAME, REDUNDANT, PADDING = 1, 2, 3, 4, 5, 6, 7, 15
CONFIG_BYTES = 4  # of an av1C record before its units
SELECT = 2
_HEADER_BYTES = 512  # what is read of a sequence header lies within


@dataclass(frozen=True, slots=True)
class Sequence:
    """What the layout of frame headers depends on. ``width``, ``height``: no frame may be larger.

    ``removal_bits``, ``presentation_bits``: 0 without a decoder model; ``points``: of each operating point which layers
    it has, and whether it has a decoder model.
    """

    reduced: bool
    removal_bits: int
    presentation_bits: int
    points: tuple[tuple[int, bool], ...]
    width_bits: int
    height_bits: int
    width: int
    height: int
    delta_id_bits: int
    frame_id_bits: int
    screen_content: int
    integer_mv: int
    order_hint_bits: int


class Bits:
    """A reader of bits, most significant first; behind the end all are 0."""

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def __call__(self, count: int) -> int:
        self._left -= count
        shifted = self._number >> self._left if self._left >= 0 else self._number << -self._left
        return shifted & ((1 << count) - 1)


def units(data: memoryview) -> Iterator[tuple[int, int, int]]:
    """``(type, first byte, end)`` of each unit; type 0, which is reserved, and no bytes where they do not add up."""
    at = 0
    while at < len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        start = at + 1 + extended
        size, shift = len(data) - start, 0
        if sized:
            size, more = 0, True
            while more and start < len(data):
                size |= (data[start] & 127) << shift
                more, shift, start = data[start] > 127, shift + 7, start + 1
        at = start + size
        if at > len(data) or shift > 56:
            yield 0, 0, 0
            return
        yield kind, start, at


def read_sequence(unit: bytes) -> Sequence:
    """Of the bytes of a unit of type ``SEQUENCE``."""
    read = Bits(unit[:_HEADER_BYTES])
    read(4)  # profile, still picture
    reduced = bool(read(1))
    delay_bits, equal, removal, presentation = 0, False, 0, 0
    if not reduced and read(1):
        delay_bits, equal, removal, presentation = _timing(read)
    points = _points(read, reduced, delay_bits)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    width, height = read(width_bits) + 1, read(height_bits) + 1
    delta_id_bits = read(4) + 2 if not reduced and read(1) else 0
    frame_id_bits = read(3) + delta_id_bits + 1 if delta_id_bits else 0
    screen_content, integer_mv, order_hint_bits = (SELECT, SELECT, 0) if reduced else _tools(read)
    return Sequence(
        reduced, removal, 0 if equal else presentation, points, width_bits, height_bits, width, height,
        delta_id_bits, frame_id_bits, screen_content, integer_mv, order_hint_bits,
    )  # fmt: skip


def _timing(read: Bits) -> tuple[int, bool, int, int]:
    """Bits of a buffer's delays; whether pictures are equally long; bits of a removal time and of a presentation time."""
    read(64)
    equal = bool(read(1))
    if equal:
        zeros = 0
        while zeros < 32 and not read(1):
            zeros += 1
        read(zeros if zeros < 32 else 0)
    if not read(1):
        return 0, equal, 0, 0
    delay_bits = read(5) + 1
    read(32)
    return delay_bits, equal, read(5) + 1, read(5) + 1


def _points(read: Bits, reduced: bool, delay_bits: int) -> tuple[tuple[int, bool], ...]:
    if reduced:
        read(5)
        return ((0, False),)
    delayed, points = read(1), []
    for _ in range(read(5) + 1):
        layers = read(12)
        if read(5) > 7:
            read(1)
        modelled = bool(delay_bits and read(1))
        if modelled:
            read(2 * delay_bits + 1)
        if delayed and read(1):
            read(4)
        points.append((layers, modelled))
    return tuple(points)


def _tools(read: Bits) -> tuple[int, int, int]:
    """Screen content, whole motion vectors, bits of an order hint."""
    read(3 + 4)
    ordered = read(1)
    read(2 * ordered)
    screen_content = SELECT if read(1) else read(1)
    integer_mv = SELECT if not screen_content or read(1) else read(1)
    return screen_content, integer_mv, read(3) + 1 if ordered else 0
