"""YUV to RGB: the matrix of a stream, and the kernel that applies it on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.errors import InvalidOptions
from gpuflow.ops.kernels import kernel

# Weights of red and blue in luma. Source: ITU-R BT.601, BT.709, BT.2020; SMPTE 240M; FCC 73.682
LUMA_WEIGHTS = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}
_BLOCK = 128
_MAX_GRID_ROWS = 65_535


def yuv_to_rgb(matrix: str, *, full_range: bool, bit_depth: int) -> NDArray[np.float32]:
    """``(3, 4)``: RGB in 0..255 from the code values ``(Y, U, V, 1)``; computed in float64.

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
    stream: Any,
) -> None:
    """Queue the conversion of one NV12 (8 bits) or P016 (more) picture on a CuPy ``stream``.

    ``luma`` and ``chroma`` are device addresses, pitches are in bytes. ``out`` is a CuPy ``(H, W, 3)`` uint8 view with
    dense pixels, its sides swapped for a rotation of 90 or 270 degrees; rows may be strided.

    Raises:
        InvalidOptions: ``out`` has another shape.
    """
    turns = rotation // 90 % 4
    shape = (width, height, 3) if turns % 2 else (height, width, 3)
    if out.shape != shape or out.strides[1:] != (3, 1):
        raise InvalidOptions(
            f"the picture needs {shape} bytes with dense pixels; got {out.shape}, strides {out.strides}"
        )
    wide = bit_depth > 8
    run = kernel("video/nv12_to_rgb", (("SAMPLE", "unsigned short"),) if wide else ())
    weights = yuv_to_rgb(matrix, full_range=full_range, bit_depth=bit_depth).ravel()
    grid = (-(-shape[1] // _BLOCK), min(shape[0], _MAX_GRID_ROWS))
    with stream:
        run(
            grid,
            (_BLOCK,),
            (
                np.uint64(luma), np.uint64(chroma), np.int64(luma_pitch), np.int64(chroma_pitch),
                np.int32(width), np.int32(height), out, np.int64(out.strides[0]),
                *weights, np.int32(16 - bit_depth if wide else 0), np.int32(turns),
            ),
        )  # fmt: skip
