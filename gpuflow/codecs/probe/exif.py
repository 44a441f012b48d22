"""The orientation tag of an EXIF block, and nothing else of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

_ORIENTATION = 0x0112
_SHORT = 3
_MAX_ENTRIES = 512
MAX_BLOCKS = 8  # of one image, more than which nobody looks at
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\x00": "little", b"MM\x00*": "big"}


def first_orientation(blocks: Iterable[bytes]) -> int:
    """Of at most ``MAX_BLOCKS`` blocks, the orientation that the first with a directory gives."""
    found = (_orientation(block) for block in blocks)
    return next((orientation for orientation in found if orientation), 1)


def exif_orientation(block: bytes) -> int:
    """Orientation 1..8 from an EXIF block with or without its ``Exif`` marker; 1 where it has none, or a broken one.

    A broken block is no reason to refuse an image: every viewer shows it unturned. Source: TIFF 6.0, Exif 2.32.
    """
    return _orientation(block) or 1


def _orientation(block: bytes) -> int:
    """Likewise; 0 where it is broken."""
    tiff = block.removeprefix(b"Exif\x00\x00")
    order = _ORDERS.get(tiff[:4])
    if order is None:
        return 0

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    first = number(4, 4)
    for entry in range(min(number(first, 2), _MAX_ENTRIES)):
        at = first + 2 + 12 * entry
        if at + 12 > len(tiff):
            return 0
        if number(at, 2) == _ORIENTATION and number(at + 2, 2) == _SHORT:
            value = number(at + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1 if first + 2 <= len(tiff) else 0
