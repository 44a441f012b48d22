"""EXIF orientation as turns and mirrors of an array: views, nothing is copied."""

from __future__ import annotations

from typing import Any


def oriented(pixels: Any, orientation: int) -> Any:
    """The stored ``(H, W, C)`` array as it is to be shown, for EXIF orientation 1..8; numpy or CuPy, a view.

    Source: Exif 2.32, tag 0x0112: from 5 on rows and columns change places.
    """
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
