"""YUV to RGB: the matrix of a stream, and the kernel that applies it on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.errors import InvalidOptions
from gpuflow.planes import Plane, Planes

# Weights of red and blue in luma. Source: ITU-R BT.601, BT.709, BT.2020; SMPTE 240M; FCC 73.682
LUMA_WEIGHTS = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}


def yuv_to_rgb(matrix: str, *, full_range: bool, bit_depth: int, colored: bool = True) -> NDArray[np.float32]:
    """``(3, 4)``: RGB in 0..255 from the code values ``(Y, U, V, 1)``; computed in float64. U and V have no weight where
    the picture is not ``colored``.

    Raises:
        InvalidOptions: no such matrix.
    """
    if matrix not in LUMA_WEIGHTS:
        raise InvalidOptions(f"a colour matrix is one of {', '.join(LUMA_WEIGHTS)}; got {matrix!r}")
    red, blue = LUMA_WEIGHTS[matrix]
    green = 1.0 - red - blue
    to_rgb = np.array(
        [
            [1.0, 0.0, 2 * (1 - red)],
            [1.0, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
            [1.0, 2 * (1 - blue), 0.0],
        ]
    )
    unit, peak = 2.0 ** (bit_depth - 8), 2.0**bit_depth - 1
    black = 0.0 if full_range else 16 * unit
    luma_span, chroma_span = (peak, peak) if full_range else (219 * unit, 224 * unit)
    scaled = 255.0 * to_rgb / np.array([luma_span, chroma_span, chroma_span])
    scaled[:, 1:] *= colored
    offset = -scaled @ np.array([black, 128 * unit, 128 * unit])
    return np.column_stack([scaled, offset]).astype(np.float32)


def nv12_to_rgb(
    luma: int,
    chroma: int,
    out: Any,
    *,
    luma_pitch: int,
    chroma_pitch: int,
    width: int,
    height: int,
    matrix: str,
    full_range: bool,
    bit_depth: int,
    rotation: int,
    mirrored: bool = False,
    stream: Any,
) -> None:
    """Queue the conversion of one NV12 (8 bits) or P016 (more) picture on a CuPy ``stream``.

    ``luma`` and ``chroma`` are device addresses, pitches are in bytes. ``out`` is a CuPy ``(H, W, 3)`` uint8 view, its
    sides swapped for a rotation of 90 or 270 degrees.

    Raises:
        InvalidOptions: ``out`` has another shape or type.
    """
    from gpuflow.ops.form import Form
    from gpuflow.ops.picture import picture_kernel  # which needs the matrix from here

    wide = bit_depth > 8
    row_bytes = (width + width % 2) * (2 if wide else 1)
    planes = (
        Plane(luma, luma_pitch, height, min(row_bytes, luma_pitch)),
        Plane(chroma, chroma_pitch, -(-height // 2), row_bytes),
    )
    picture = Planes(
        planes, width, height, matrix, full_range, bit_depth, 16 - bit_depth if wide else 0, rotation,
        mirrored=mirrored,
    )  # fmt: skip
    picture_kernel(out.device.id).write(picture, Form(picture.displayed_size), out, stream=stream)
