"""Whether the frames of an AV1 temporal unit stay in the decoder's memory. As much of the headers as that takes.

Source: AV1 Bitstream and Decoding Process Specification, section 5.9.2 (frame).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from gpuflow.codecs import av1
from gpuflow.codecs.av1 import CONFIG_BYTES, FRAME, FRAME_HEADER, SELECT, Bits, Sequence, units

_BESIDE = frozenset({av1.DELIMITER, av1.TILES, av1.METADATA, av1.REDUNDANT, av1.PADDING})
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_HEADER_BYTES = 32  # refresh_frame_flags lies within


def frames_that_stay(extradata: bytes) -> Callable[[memoryview], bool] | None:
    """A function that tells of a temporal unit whether later ones may refer to any of its frames; ``None`` where the
    sequence header is not in the ``av1C`` record, or of a kind (layers, a decoder model) that is not read here."""
    if extradata[:1] != b"\x81":
        return None
    for kind, start, end in units(memoryview(extradata)[CONFIG_BYTES:]):
        if kind == av1.SEQUENCE:
            sequence = av1.read_sequence(extradata[CONFIG_BYTES + start : CONFIG_BYTES + end])
            plain = not sequence.reduced and not sequence.removal_bits and len(sequence.points) == 1
            return functools.partial(_stays, sequence) if plain else None
    return None


def shows_a_keyframe(payload: memoryview) -> bool:
    """Whether a temporal unit shows a keyframe that it holds, of a sequence without reduced headers."""
    headers = (payload[start] for kind, start, end in units(payload) if kind in (FRAME, FRAME_HEADER) and start < end)
    return any(header >> 4 == 0b0001 for header in headers)  # not shown again, type 0, shown


def _stays(sequence: Sequence, payload: memoryview) -> bool:
    frames = 0
    for kind, start, end in units(payload):
        if kind in (FRAME, FRAME_HEADER):
            frames += 1
            if _refreshes(Bits(bytes(payload[start : min(end, start + _HEADER_BYTES)])), sequence):
                return True
        elif kind not in _BESIDE:  # a new sequence, or what does not add up
            return True
    return frames == 0


def _refreshes(read: Bits, sequence: Sequence) -> bool:
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
    screen_content = read(1) if sequence.screen_content == SELECT else sequence.screen_content
    if screen_content and sequence.integer_mv == SELECT:
        read(1)
    read(sequence.frame_id_bits + 1 + sequence.order_hint_bits)
    if kind != _INTRA_ONLY and not resilient:
        read(3)
    return read(8) != 0
