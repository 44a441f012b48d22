"""How large the frames of AV1 streams are by their own headers: the decoder allocates by these, not by a box.

dav1d takes frames that are larger than their sequence header allows, so the header of every frame is read.
Source: AV1 Bitstream and Decoding Process Specification, sections 5.9.2 to 5.9.7; AV1 in ISOBMFF 1.3, section 2.4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gpuflow.codecs.av1 import FRAME, FRAME_HEADER, REDUNDANT, SELECT, SEQUENCE, Bits, Sequence, read_sequence, units
from gpuflow.codecs.probe.claims import check_count
from gpuflow.config import Limits
from gpuflow.errors import CorruptMedia, UnsupportedFormat

_HEADER_BYTES = 128  # the size of a frame stands within them
_SEQUENCE_BYTES = 512
_MAX_UNITS = 32_768  # of all pictures together
_MAX_FRAMES = 4_096
_FRAMES = frozenset({FRAME, FRAME_HEADER, REDUNDANT})
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_REFERENCES, _KEPT = 7, 8


@dataclass(slots=True)
class Streams:
    """The streams of one file, whose units and frames are counted together."""

    limits: Limits
    units: int = 0
    frames: int = 0
    _read: dict[bytes, Sequence] = field(default_factory=dict)

    def check(self, payload: memoryview, sequence: Sequence | None = None) -> tuple[Sequence, int]:
        """Hold a picture's bytes to the limits: its sequence header, and how many frames are decoded.

        ``sequence``: that of the pictures before it in the same track, which it may not change.

        Raises:
            CorruptMedia: no sequence header or several, a frame larger than it allows, or units that do not add up.
            LimitExceeded: too many pixels, units or frames.
            UnsupportedFormat: frames of a size of their own, of layers with a decoder model.
        """
        frames = 0
        for kind, start, end in units(payload):
            self.units += 1
            check_count(self.units, _MAX_UNITS, "units in its pictures")
            if kind == 0 and start == end:
                raise CorruptMedia("the units of an AV1 picture do not add up")
            if kind == SEQUENCE:
                sequence = self._same(bytes(payload[start : min(end, start + _SEQUENCE_BYTES)]), sequence)
            elif kind in _FRAMES:
                frames += self._check_frame(bytes(payload[start : min(end, start + _HEADER_BYTES)]), sequence)
                check_count(self.frames + frames, _MAX_FRAMES, "frames in its pictures")
        if sequence is None:
            raise CorruptMedia("a picture of the AVIF has no AV1 sequence header")
        self.frames += frames
        return sequence, frames

    def _same(self, unit: bytes, before: Sequence | None) -> Sequence:
        found = self._read.get(unit)
        if found is None:
            found = self._read[unit] = read_sequence(unit)
            check_count(
                found.width * found.height, self.limits.max_image_pixels, "pixels in a picture", "max_image_pixels"
            )
        if before not in (None, found):
            raise CorruptMedia("a picture of the AVIF has two AV1 sequence headers")
        return found

    def _check_frame(self, header: bytes, sequence: Sequence | None) -> bool:
        """Whether it is one to decode, and not one that is shown again."""
        if sequence is None:
            raise CorruptMedia("a frame of the AVIF stands before its AV1 sequence header")
        if sequence.reduced:
            return True
        if header[:1] >= b"\x80":
            return False
        width, height = _frame_size(Bits(header), sequence)
        if width > sequence.width or height > sequence.height:
            raise CorruptMedia(f"a frame of {width}x{height} in an AV1 sequence of {sequence.width}x{sequence.height}")
        return True


def _frame_size(read: Bits, sequence: Sequence) -> tuple[int, int]:
    """Width and height; those of the sequence where the frame does not say, and 0 where it takes those of another."""
    read(1)
    kind, shown = read(2), read(1)
    if shown:
        read(sequence.presentation_bits)
    else:
        read(1)
    resilient = kind == _SWITCH or (kind == _KEY and shown) or read(1)
    read(1)
    screen_content = read(1) if sequence.screen_content == SELECT else sequence.screen_content
    if screen_content and sequence.integer_mv == SELECT:
        read(1)
    read(sequence.frame_id_bits)
    if not (kind == _SWITCH or read(1)):
        return sequence.width, sequence.height
    read(sequence.order_hint_bits)
    intra = kind in (_KEY, _INTRA_ONLY)
    if not intra and not resilient:
        read(3)
    _pass_removal_times(read, sequence)
    refreshed = 0xFF if kind == _SWITCH or (kind == _KEY and shown) else read(8)
    if resilient and (not intra or refreshed != 0xFF):
        read(_KEPT * sequence.order_hint_bits)
    if not intra:
        _pass_references(read, sequence)
        if not resilient and any(read(1) for _ in range(_REFERENCES)):
            return 0, 0
    return read(sequence.width_bits) + 1, read(sequence.height_bits) + 1


def _pass_removal_times(read: Bits, sequence: Sequence) -> None:
    if not (sequence.removal_bits and read(1)):
        return
    for layers, modelled in sequence.points:
        if modelled and layers:
            raise UnsupportedFormat("an AVIF of layers with a decoder model, whose frames differ in size, is not read")
        read(sequence.removal_bits * modelled)


def _pass_references(read: Bits, sequence: Sequence) -> None:
    short = sequence.order_hint_bits and read(1)
    read(6 * short)
    for _ in range(_REFERENCES):
        read((0 if short else 3) + sequence.delta_id_bits)
