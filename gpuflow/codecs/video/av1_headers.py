"""Whether the frames of an AV1 temporal unit stay in the decoder's memory. As much of the headers as that takes.

Source: AV1 Bitstream and Decoding Process Specification, sections 5.3 (OBU), 5.5 (sequence) and 5.9.2 (frame).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_SEQUENCE, _DELIMITER, _FRAME_HEADER, _TILES, _METADATA, _FRAME, _REDUNDANT, _PADDING = 1, 2, 3, 4, 5, 6, 7, 15
_BESIDE = frozenset({_DELIMITER, _TILES, _METADATA, _REDUNDANT, _PADDING})
_CONFIG_BYTES = 4  # of an av1C record before its OBUs
_SELECT = 2
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_HEADER_BYTES = 32  # refresh_frame_flags lies within


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What the layout of frame headers depends on."""

    screen_content: int
    integer_mv: int
    frame_id_bits: int
    order_hint_bits: int


def frames_that_stay(extradata: bytes) -> Callable[[memoryview], bool] | None:
    """A function that tells of a temporal unit whether later ones may refer to any of its frames; ``None`` where the
    sequence header is not in the ``av1C`` record, or of a kind (layers, a decoder model) that is not read here."""
    if extradata[:1] != b"\x81":
        return None
    for kind, start, end in _units(memoryview(extradata)[_CONFIG_BYTES:]):
        if kind == _SEQUENCE:
            sequence = _sequence(_Bits(extradata[_CONFIG_BYTES + start : _CONFIG_BYTES + end]))
            return None if sequence is None else functools.partial(_stays, sequence)
    return None


def shows_a_keyframe(payload: memoryview) -> bool:
    """Whether a temporal unit shows a keyframe that it holds, of a sequence without reduced headers."""
    units = (payload[start] for kind, start, end in _units(payload) if kind in (_FRAME, _FRAME_HEADER) and start < end)
    return any(header >> 4 == 0b0001 for header in units)  # not shown again, type 0, shown


def _stays(sequence: _Sequence, payload: memoryview) -> bool:
    frames = 0
    for kind, start, end in _units(payload):
        if kind in (_FRAME, _FRAME_HEADER):
            frames += 1
            if _refreshes(_Bits(bytes(payload[start : min(end, start + _HEADER_BYTES)])), sequence):
                return True
        elif kind not in _BESIDE:  # a new sequence, or what does not add up
            return True
    return frames == 0


def _units(data: memoryview) -> Iterator[tuple[int, int, int]]:
    """``(type, first byte, end)`` of each OBU; type 0, which is reserved, where they do not add up."""
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


class _Bits:
    """A reader of bits, most significant first; behind the end all are 0."""

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def __call__(self, count: int) -> int:
        self._left -= count
        shifted = self._number >> self._left if self._left >= 0 else self._number << -self._left
        return shifted & ((1 << count) - 1)


def _sequence(read: _Bits) -> _Sequence | None:
    read(4)  # profile, still picture
    if read(1):  # a reduced header
        return None
    if read(1) and not _timing(read):
        return None
    delays = read(1)
    if read(5):  # several operating points: layers
        return None
    read(12)
    if read(5) > 7:
        read(1)
    if delays and read(1):
        read(4)
    widths = read(4), read(4)
    read(widths[0] + widths[1] + 2)
    frame_id_bits = read(4) + read(3) + 3 if read(1) else 0
    read(3 + 4)
    ordered = read(1)
    read(2 * ordered)
    screen_content = _SELECT if read(1) else read(1)
    integer_mv = _SELECT if not screen_content or read(1) else read(1)
    return _Sequence(screen_content, integer_mv, frame_id_bits, read(3) + 1 if ordered else 0)


def _timing(read: _Bits) -> bool:
    """Pass over the timing information; false where a decoder model follows it."""
    read(64)
    if read(1):
        zeros = 0
        while zeros < 32 and not read(1):
            zeros += 1
        read(zeros)
    return not read(1)


def _refreshes(read: _Bits, sequence: _Sequence) -> bool:
    """Whether a frame header says that the frame is kept; true where it shows one again, or is a keyframe."""
    if read(1):
        return True
    kind, shown = read(2), read(1)
    if kind in (_KEY, _SWITCH):
        return True
    if not shown:
        read(1)
    resilient = read(1)
    read(1)
    screen_content = read(1) if sequence.screen_content == _SELECT else sequence.screen_content
    if screen_content and sequence.integer_mv == _SELECT:
        read(1)
    read(sequence.frame_id_bits + 1 + sequence.order_hint_bits)
    if kind != _INTRA_ONLY and not resilient:
        read(3)
    return read(8) != 0
