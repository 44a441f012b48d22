"""Pages of a TIFF by Pillow and libtiff, which are shown one page and the tags that were looked at (``lone_page``)."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.base import ImageInfo
from gpuflow.codecs.probe.tiff import lone_page

_LOW_BYTES = {"16L": "16B", "16B": "16L", "16N": "16B" if sys.byteorder == "little" else "16L"}


def tiff_page(data: bytes, frame: int) -> io.BytesIO:
    """The page as a file."""
    return io.BytesIO(lone_page(data, frame))


def deep_pixels(image: Any, page: io.BytesIO, info: ImageInfo) -> NDArray[np.uint8]:
    """``(H, W, 3)`` or ``(H, W, 4)`` of an opened page of 16 bits a colour: levels divided by 257, rounded.

    Pillow keeps the upper byte of each. It is read a second time as if it lay in the other order, which gives the lower.
    """
    from PIL import Image

    with Image.open(page, formats=("TIFF",)) as lower:
        lower.tile = [_of_low_bytes(tile) for tile in lower.tile]
        pixels: NDArray[np.uint8] = np.array(image)
        more = np.array(lower).astype(np.int16) - pixels
    # (256 upper + lower) / 257 is upper + (lower - upper) / 257: the rounding of what is at most a step
    pixels += more > 128
    pixels -= more < -128
    return pixels[:, :, : 4 if info.has_alpha else 3]


def _of_low_bytes(tile: Any) -> Any:
    mode, *rest = tile.args
    name, _, order = mode.partition(";")
    return tile._replace(args=(f"{name};{_LOW_BYTES[order]}", *rest))
