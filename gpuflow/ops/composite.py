"""Transparency laid over a background colour."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


def flatten_alpha(
    pixels: Any,
    *,
    alpha: Literal["composite", "drop"] = "composite",
    background: tuple[int, int, int] = (255, 255, 255),
) -> Any:
    """``(H, W, 3)`` uint8 from ``(H, W, 4)``; three channels pass as they are. ``"drop"`` shows the hidden colour.

    Source: the rounding of Pillow's ``paste`` with a mask, which servers use: ``round(x / 255)`` as ``(x + (x >> 8)) >> 8``
    of ``x + 128``.
    """
    if pixels.shape[2] == 3:
        return pixels
    colors, opacity = pixels[:, :, :3], pixels[:, :, 3:]
    if alpha == "drop" or (opacity == 255).all():
        return colors
    return _blend(colors, opacity, np.array(background, np.uint16))


def flattened(pixels: Any, background: tuple[int, int, int] | None) -> Any:
    """``flatten_alpha`` over a background, or, of ``None``, dropped."""
    if background is None:
        return flatten_alpha(pixels, alpha="drop")
    return flatten_alpha(pixels, background=background)


def _blend(colors: NDArray[np.uint8], opacity: NDArray[np.uint8], background: NDArray[np.uint16]) -> NDArray[np.uint8]:
    weight = opacity.astype(np.uint16)
    mixed = colors * weight
    mixed += background * (255 - weight)
    mixed += 128  # at most 65153: 16 bits suffice
    mixed += mixed >> 8
    mixed >>= 8
    return mixed.astype(np.uint8)
