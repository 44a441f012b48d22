"""Which grid of tiles an image is laid on: one function a family. Whole numbers in, whole numbers out."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence

from gpuflow.presets.view import Size


def best_pinpoint(height: int, width: int, pinpoints: Sequence[Size]) -> Size:
    """The canvas, (height, width), that keeps the most of the image's pixels, of equal ones the one that wastes the
    fewest. Source: ``select_best_resolution`` of LLaVA-NeXT and LLaVA-OneVision."""
    best, most, least = pinpoints[0], 0, math.inf
    for canvas in pinpoints:
        scale = min(canvas[1] / width, canvas[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = canvas[0] * canvas[1] - kept
        if kept > most or (kept == most and wasted < least):
            best, most, least = canvas, kept, wasted
    return best


def fitted_up(height: int, width: int, canvas: Size) -> Size:
    """As large as fits the canvas, the free side rounded up. Source: ``get_patch_output_size`` of LLaVA-NeXT."""
    by_width, by_height = canvas[1] / width, canvas[0] / height
    if by_width < by_height:
        return min(math.ceil(height * by_width), canvas[0]), canvas[1]
    return canvas[0], min(math.ceil(width * by_height), canvas[1])


def fitted_down(height: int, width: int, canvas: Size) -> Size:
    """As large as fits the canvas, the free side rounded down; 0 of an image that is too thin for it.

    Source: Llama 4's and Phi-4-multimodal's processors.
    """
    by_width, by_height = canvas[1] / width, canvas[0] / height
    if by_width < by_height:
        return min(math.floor(height * by_width), canvas[0]), canvas[1]
    return canvas[0], min(math.floor(width * by_height), canvas[1])


def closest_ratio(height: int, width: int, *, tile: Size, least: int, most: int) -> Size:
    """(rows, columns) of the grid of ``least`` to ``most`` tiles whose ratio is the image's most nearly; of equal ones
    the larger, where the image has more than half of its pixels. Source: InternVL's, and Phi-4-multimodal's for large
    images."""
    best, nearest = (1, 1), math.inf
    for rows, columns in _grids(least, most):
        away = abs(width / height - columns / rows)
        enough = width * height > 0.5 * tile[0] * tile[1] * columns * rows
        if away < nearest or (away == nearest and enough):
            best, nearest = (rows, columns), away
    return best


def covering(height: int, width: int, *, tile: Size, most: int) -> Size:
    """(rows, columns) of tiles that cover the image as it is, or the closest ratio where they were more than ``most``.

    Source: ``dynamic_preprocess`` of Phi-4-multimodal.
    """
    rows, columns = -(-height // tile[0]), -(-width // tile[1])
    if rows * columns <= most:
        return rows, columns
    return closest_ratio(height, width, tile=tile, least=1, most=most)


def best_fit(height: int, width: int, *, tile: Size, most: int) -> Size:
    """(rows, columns) of the grid that enlarges the image the least, or shrinks it the least where none enlarges it; of
    equal ones the smallest. Source: ``get_best_fit`` of Llama 4, whose tensors of whole numbers divide to float32."""
    scales = [
        (min(_float32(columns * tile[1] / width), _float32(rows * tile[0] / height)), rows, columns)
        for rows, columns in _grids(1, most)
    ]
    growing = [scale for scale, _, _ in scales if scale >= 1]
    chosen = min(growing) if growing else max(scale for scale, _, _ in scales)
    fitting = [(rows, columns) for scale, rows, columns in scales if scale == chosen]
    return min(fitting, key=lambda grid: grid[0] * grid[1])


def crops_along(long: int, short: int, *, min_crop: int, max_crops: int, min_ratio: float) -> int:
    """How many crops the longer side of an image is cut into; 0 is none. Source: Gemma 3's pan and scan."""
    if long / short < min_ratio:
        return 0
    count = min(max_crops, max(2, min(long // min_crop, math.floor(long / short + 0.5))))
    return count if min(-(-long // count), short) >= min_crop else 0


def whole_tiles(height: int, width: int, side: int) -> Size:
    """The size in whole tiles, the shorter side of the longer one's ratio. Source: ``resize_for_vision_encoder`` of
    Idefics3."""
    ratio = width / height
    if width >= height:
        across = _up(width, side)
        return _up(int(across / ratio), side), across
    down = _up(height, side)
    return down, _up(int(down * ratio), side)


def _up(length: int, side: int) -> int:
    return -(-length // side) * side


@functools.lru_cache(maxsize=64)
def _grids(least: int, most: int) -> tuple[Size, ...]:
    """(rows, columns), fewest tiles first, of as many the highest first."""
    grids = [
        (rows, columns)
        for columns in range(1, most + 1)
        for rows in range(1, most // columns + 1)
        if rows * columns >= least
    ]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def _float32(value: float) -> float:
    """Rounded to float32; the quotient of two float32 is the same whether it was rounded to float64 first or not."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
