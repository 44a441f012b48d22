"""Pictures that cost decoders what photographs do: leaves of all sizes over one another, shades and fine texture, by seed.

At quality 90 and 4:2:0 a photograph of 500x375 takes 1.9 to 2.5 bits a pixel as JPEG, 1.5 to 2.4 as WebP and 12 to 15 as
PNG (four public ones); a drawn scene takes half of that, and so half of the time of its entropy coder.
"""

from __future__ import annotations

import functools
import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Form = Literal["JPEG", "PNG", "WEBP"]
_LEAVES = 400
_OPTIONS: dict[Form, dict[str, Any]] = {
    "JPEG": {"quality": 90, "subsampling": "4:2:0"},
    "PNG": {},
    "WEBP": {"quality": 90},
}


@functools.lru_cache(maxsize=64)
def encoded(form: Form, width: int, height: int, seed: int) -> bytes:
    """A picture as a file, by Pillow's encoders."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture(width, height, seed)).save(out, form, **_OPTIONS[form])
    return out.getvalue()


@functools.lru_cache(maxsize=8)
def picture(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8: dead leaves (sizes by a power law, as of things in photographs), lit unevenly, with texture."""
    rng = np.random.default_rng(seed)
    levels = _leaves(rng, width, height).astype(np.float32)
    cells = 3
    while cells < height:
        fine = 14.0 if cells < height / 8 else 3.5  # lenses blur what is smallest
        levels += fine * rng.uniform(0.3, 1.0) * _shade(rng, width, height, cells)[..., None]
        cells *= 2
    levels += rng.normal(0, 2.3, levels.shape).astype(np.float32)  # of the sensor
    return (levels + 0.5).clip(0, 255).astype(np.uint8)


def _leaves(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (width, height), (110, 120, 110))
    pen = ImageDraw.Draw(sheet)
    radii = height / 60 / np.sqrt(rng.uniform(0.0012, 1.0, _LEAVES))
    for radius, tilt in zip(radii, rng.uniform(0.4, 1.0, _LEAVES), strict=True):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        gray, tint = rng.normal(118, 46), rng.normal(0, 16, 3)
        color = tuple(int(level) for level in (gray + tint).clip(0, 255))
        pen.ellipse((x - radius, y - radius * tilt, x + radius, y + radius * tilt), fill=color)
    return np.asarray(sheet)


def _shade(rng: np.random.Generator, width: int, height: int, cells: int) -> NDArray[np.float32]:
    """``(H, W)``: smooth noise of so many cells down."""
    from PIL import Image

    across = max(2, round(cells * width / height))
    small = Image.fromarray(rng.normal(size=(cells, across)).astype(np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
