"""Transparency laid over a background colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def flattened(pixels: Any, background: tuple[int, int, int] | None) -> Any:
    """``(H, W, 3)`` uint8 from ``(H, W, 4)``, over a background or, of ``None``, with the hidden colour shown; three
    channels pass as they are.

    Source: the rounding of Pillow's ``paste`` with a mask, which servers use: ``round(x / 255)`` as ``(x + (x >> 8)) >> 8``
    of ``x + 128``.
    """
    if pixels.shape[2] == 3:
        return pixels
    colors, opacity = pixels[:, :, :3], pixels[:, :, 3:]
    if background is None or (opacity == 255).all():
        return colors
    return _blend(colors, opacity, np.array(background, np.uint16))


def _blend(colors: NDArray[np.uint8], opacity: NDArray[np.uint8], background: NDArray[np.uint16]) -> NDArray[np.uint8]:
    weight = opacity.astype(np.uint16)
    mixed = colors * weight
    mixed += background * (255 - weight)
    mixed += 128  # at most 65153: 16 bits suffice
    mixed += mixed >> 8
    mixed >>= 8
    return mixed.astype(np.uint8)
