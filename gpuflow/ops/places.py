"""Where the pixels of a view lie among those of its plan: a sum of one offset by row, one by column and one by channel."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuflow.presets.plan import ImagePlan
from gpuflow.presets.view import Size, View

Steps = tuple[tuple[int, int], ...]
"""``(unit, step)``, falling units: so many rows or columns are so many numbers, counted from the largest unit down."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """In numbers from the pixels' first one. ``rows`` and ``columns``: int64, of the view's canvas. ``repeats``: how often
    a pixel is there, ``repeat`` numbers apart. ``key``: what tables of the offsets may be known by."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    channel: int
    repeat: int
    repeats: int
    key: tuple[object, ...]


def places(plan: ImagePlan, view: View) -> Places:
    """Of a view's canvas; ``first_place`` is where it begins. What ``gpuflow.ops.arrange.view_places`` gives as views."""
    return _places(plan.layout, view.canvas, view.tile or view.canvas, plan.patch, plan.merge, plan.temporal_patch)


def first_place(plan: ImagePlan, view: View) -> int:
    """The number at which the first tile of the view begins."""
    height, width = view.tile or view.canvas
    return 3 * height * width * view.first if plan.layout == "CHW" else 0


def interleaved(size: Size) -> Places:
    """Of a picture of its own, ``(H, W, 3)``."""
    return _places("HWC", size, size, 1, 1, 1)


@functools.lru_cache(maxsize=64)
def _places(layout: str, canvas: Size, tile: Size, patch: int, merge: int, times: int) -> Places:
    rows, columns, channel = _steps(layout, canvas, tile, patch, merge, times)
    repeats = times if layout == "patches" else 1
    key = (layout, canvas, tile, patch, merge, times)
    return Places(_spread(canvas[0], rows), _spread(canvas[1], columns), channel, patch * patch, repeats, key)


def _steps(layout: str, canvas: Size, tile: Size, patch: int, merge: int, times: int) -> tuple[Steps, Steps, int]:
    """Of rows, of columns, and from channel to channel."""
    height, width = tile
    if layout == "HWC":
        return ((1, 3 * canvas[1]),), ((1, 3),), 1
    if layout == "CHW":
        one = 3 * height * width
        return ((height, canvas[1] // width * one), (1, width)), ((width, one), (1, 1)), height * width
    one, across = 3 * times * patch * patch, canvas[1] // patch
    if layout == "patches_last":
        return ((patch, across * one), (1, 3 * patch)), ((patch, one), (1, 3)), 1
    block = patch * merge
    down = ((block, across * merge * one), (patch, merge * one), (1, patch))
    return down, ((block, merge * merge * one), (patch, one), (1, 1)), times * patch * patch


def _spread(side: int, steps: Steps) -> NDArray[np.int64]:
    left, offsets = np.arange(side, dtype=np.int64), np.zeros(side, np.int64)
    for unit, step in steps:
        digits, left = np.divmod(left, unit)
        offsets += digits * step
    return offsets
