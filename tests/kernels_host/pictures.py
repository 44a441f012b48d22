"""Random YUV pictures in host memory, and what RGB, resize and form make of them, in numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuflow.ops.color import LUMA_WEIGHTS, yuv_to_rgb
from gpuflow.ops.form import Form
from gpuflow.ops.taps import Taps, taps
from gpuflow.planes import Plane, Planes

# Planes of the picture, bits, how far they are shifted up, and how often chroma is halved across and down
KINDS: dict[str, tuple[int, int, int, tuple[int, int]]] = {
    "nv12": (2, 8, 0, (1, 1)),
    "p010": (2, 10, 6, (1, 1)),
    "p012": (2, 12, 4, (1, 1)),
    "nv16": (2, 8, 0, (1, 0)),
    "yuv420p": (3, 8, 0, (1, 1)),
    "yuv422p": (3, 8, 0, (1, 0)),
    "yuv444p": (3, 8, 0, (0, 0)),
    "yuv420p10": (3, 10, 0, (1, 1)),
    "yuv422p10": (3, 10, 0, (1, 0)),
    "yuv444p12": (3, 12, 0, (0, 0)),
    "gray": (1, 8, 0, (0, 0)),
    "gray10": (1, 10, 0, (0, 0)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A picture and its code values, each ``(height, width)``: chroma is the nearest sample."""

    planes: Planes
    y: NDArray[np.int64]
    u: NDArray[np.int64]
    v: NDArray[np.int64]


def draw(
    kind: str,
    size: tuple[int, int],
    *,
    matrix: str = "bt709",
    full: bool = False,
    rotation: int = 0,
    mirrored: bool = False,
    seed: int = 0,
) -> Drawn:
    """Noise over all code values; ``size`` is (height, width) before rotation. No plane has a byte after its last row."""
    count, bits, shift, halved = KINDS[kind]
    random = np.random.default_rng((seed, *size, rotation))
    height, width = size
    sides = (-(-height >> halved[1]), -(-width >> halved[0]))
    y = random.integers(0, 1 << bits, size)
    u, v = (random.integers(0, 1 << bits, sides) for _ in "uv")
    dtype = np.uint8 if bits == 8 else np.uint16
    parts = {1: [y], 2: [y, np.stack([u, v], -1).reshape(sides[0], -1)], 3: [y, u, v]}[count]
    laid = [_laid((part << shift).astype(dtype), gap=3 * (index > 0) + 5) for index, part in enumerate(parts)]
    planes = Planes(
        tuple(plane for plane, _ in laid), width, height, matrix, full, bits, shift, rotation, halved, mirrored,
        on_host=True, owner=[memory for _, memory in laid],
    )  # fmt: skip
    if count == 1:
        u = v = np.full(sides, 1 << (bits - 1))
    return Drawn(planes, y, nearest(u, halved, size), nearest(v, halved, size))


def rounded_rgb(drawn: Drawn) -> NDArray[np.uint8]:
    """Displayed ``(H, W, 3)``, by the kernel's own float32 steps: equal to its result, not near it."""
    p = drawn.planes
    m = yuv_to_rgb(p.matrix, full_range=p.full_range, bit_depth=p.bit_depth, colored=len(p.planes) > 1).astype(float)
    sums = np.broadcast_to(m[:, 3], (*drawn.y.shape, 3))
    for column, values in ((2, drawn.v), (1, drawn.u), (0, drawn.y)):  # each product and sum is rounded once
        sums = (m[:, column] * values[..., None] + sums).astype(np.float32).astype(float)
    levels = np.floor(sums.astype(np.float32) + np.float32(0.5)).clip(0, 255).astype(np.uint8)
    return _shown(levels, p)


def exact_rgb(drawn: Drawn) -> NDArray[np.float64]:
    """Displayed ``(H, W, 3)`` in float64, not rounded: the definitions of BT.601, BT.709, BT.2020, SMPTE 240M, FCC."""
    p = drawn.planes
    unit, peak = 2 ** (p.bit_depth - 8), 2**p.bit_depth - 1
    luminance = drawn.y / peak if p.full_range else (drawn.y - 16 * unit) / (219 * unit)
    span = peak if p.full_range else 224 * unit
    blueness, redness = (drawn.u - 128 * unit) / span, (drawn.v - 128 * unit) / span
    red_weight, blue_weight = LUMA_WEIGHTS[p.matrix]
    red = luminance + 2 * (1 - red_weight) * redness
    blue = luminance + 2 * (1 - blue_weight) * blueness
    green = (luminance - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return _shown((255 * np.stack([red, green, blue], -1)).clip(0, 255), p)


def nearest(chroma: NDArray[Any], halved: tuple[int, int], size: tuple[int, int]) -> NDArray[np.int64]:
    """A chroma plane at the size of luma; ``halved``: how often its columns and rows are."""
    rows, columns = np.arange(size[0]) >> halved[1], np.arange(size[1]) >> halved[0]
    return np.asarray(chroma[np.ix_(rows, columns)], np.int64)


def resized(rgb: NDArray[np.uint8], form: Form) -> NDArray[np.uint8]:
    """``(H, W, 3)`` to ``(*form.canvas, 3)``: along rows, then along columns, by the tables."""
    down, across = (taps(rgb.shape[axis], form.size[axis], form.resample) for axis in (0, 1))
    lines = gathered(rgb.swapaxes(0, 1), across).swapaxes(0, 1)
    return _centred(gathered(lines, down), form.canvas)


def arranged(levels: NDArray[np.uint8], form: Form) -> NDArray[Any]:
    """``(H, W, 3)`` levels as a picture's place holds them."""
    numbers = form.numbers()
    values = levels if numbers is None else np.stack([numbers[c][levels[..., c]] for c in range(3)], -1)
    if form.layout == "HWC":
        return values
    if form.layout == "CHW":
        return values.transpose(2, 0, 1)
    (down, across), merge, patch = form.grid, form.merge, form.patch
    blocks = values.reshape(down // merge, merge, patch, across // merge, merge, patch, 3)
    return blocks.transpose(0, 3, 1, 4, 6, 2, 5)


def _shown(rgb: NDArray[Any], planes: Planes) -> NDArray[Any]:
    return np.rot90(rgb[:, ::-1] if planes.mirrored else rgb, planes.rotation // 90)


def _laid(samples: NDArray[Any], gap: int) -> tuple[Plane, NDArray[np.uint8]]:
    rows, row_bytes = samples.shape[0], samples.shape[1] * samples.itemsize
    pitch = row_bytes + gap * samples.itemsize
    memory = np.full(pitch * (rows - 1) + row_bytes, 0xAA, np.uint8)
    for row in range(rows):
        memory[row * pitch : row * pitch + row_bytes] = samples[row].view(np.uint8)
    return Plane(int(memory.ctypes.data), pitch, rows, row_bytes), memory


def gathered(levels: NDArray[np.uint8], table: Taps) -> NDArray[np.uint8]:
    """Along the first axis."""
    sums = [
        np.tensordot(table.weights[i, :count].astype(np.int64), levels[first : first + count].astype(np.int64), 1)
        for i, (first, count) in enumerate(table.spans)
    ]
    return (np.stack(sums) + (1 << (table.precision - 1)) >> table.precision).clip(0, 255).astype(np.uint8)


def _centred(levels: NDArray[np.uint8], canvas: tuple[int, int]) -> NDArray[np.uint8]:
    for axis, side in enumerate(canvas):
        missing, surplus = max(0, side - levels.shape[axis]), max(0, levels.shape[axis] - side)
        margins = [(0, 0)] * levels.ndim
        margins[axis] = (missing // 2, missing - missing // 2)
        start = surplus // 2
        levels = np.pad(levels, margins).take(range(start, start + side), axis)
    return levels
