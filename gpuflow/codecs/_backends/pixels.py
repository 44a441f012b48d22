"""What every image decoder does with its pixels at the end: 8 bits of them, the shape that the header said, their place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.codecs.base import ImageInfo
from gpuflow.errors import CorruptMedia

_BLOCK_LEVELS = 1 << 16


def to_8_bits(levels: NDArray[Any], *, most: int = 65_535) -> NDArray[np.uint8]:
    """``(H, W, C)`` levels of 0 to ``most``, at most 16 bits, brought to 0 to 255 and rounded: what Pillow clips or
    shifts. In blocks of rows, which take next to nothing beside the result."""
    pixels = np.empty(levels.shape, np.uint8)
    rows = max(1, _BLOCK_LEVELS // max(1, levels[:1].size))
    for top in range(0, len(levels), rows):
        block = levels[top : top + rows].astype(np.uint32)
        block *= 255
        block += most // 2
        block //= most
        pixels[top : top + rows] = block
    return pixels


def in_colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gray, or gray and alpha, as ``(H, W, 3)`` or ``(H, W, 4)``; others as they are."""
    if pixels.shape[2] > 2:
        return pixels
    return np.concatenate([np.repeat(pixels[:, :, :1], 3, axis=2), pixels[:, :, 1:]], axis=2)


def handed_over(pixels: Any, info: ImageInfo, out: Any = None) -> Any:
    """``pixels`` as ``ImageDecoder.decode`` returns them: written to ``out``, where there is one.

    Raises:
        CorruptMedia: they have another size, or other channels, than the header says.
    """
    height, width, channels = wanted = (info.height, info.width, 4 if info.has_alpha else 3)
    if pixels.shape != wanted:
        found = "x".join(map(str, (pixels.shape[1], pixels.shape[0], *pixels.shape[2:])))
        raise CorruptMedia(f"the {info.format} claims {width}x{height}x{channels} and holds another size: {found}")
    if out is None:
        return pixels
    np.copyto(out, pixels)
    return out
