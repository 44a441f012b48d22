"""A decoded picture before it is RGB: what codecs hand over and ops convert, without either knowing the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Plane:
    """``rows`` rows of ``row_bytes`` bytes at ``address``, ``pitch`` bytes from each to the next."""

    address: int
    pitch: int
    rows: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Planes:
    """One YUV picture in host or GPU memory: ``(Y, UV)`` as NV12 and P016, ``(Y, U, V)``, or ``(Y,)`` without colour.

    ``chroma_shift``: how often width and height are halved for chroma, ``(1, 1)`` for 4:2:0. ``shift``: how far a
    16-bit sample's code value lies above its lowest bit (P016: 16 - ``bit_depth``). What is
    shown is ``mirrored`` left to right, then turned by ``rotation`` degrees counter-clockwise. ``owner`` keeps the memory; whoever uses the addresses keeps ``self``.
    """

    planes: tuple[Plane, ...]
    width: int
    height: int
    matrix: str
    full_range: bool
    bit_depth: int = 8
    shift: int = 0
    rotation: int = 0
    chroma_shift: tuple[int, int] = (1, 1)
    mirrored: bool = False
    on_host: bool = False
    owner: Any = field(default=None, repr=False, compare=False)

    @property
    def displayed_size(self) -> tuple[int, int]:
        """``(height, width)`` after rotation."""
        return (self.width, self.height) if self.rotation % 180 else (self.height, self.width)

    @property
    def sample_bytes(self) -> int:
        """1 up to 8 bits, 2 above."""
        return 2 if self.bit_depth > 8 else 1

    @property
    def needed(self) -> tuple[tuple[int, int], ...]:
        """``(rows, row_bytes)`` that each plane has at least."""
        across, down = (
            -(-side >> shift) for side, shift in zip((self.width, self.height), self.chroma_shift, strict=True)
        )
        chroma = (down, across * self.sample_bytes * (2 if len(self.planes) == 2 else 1))
        return ((self.height, self.width * self.sample_bytes), chroma, chroma)[: len(self.planes)]
