"""How kernels that resize cut their work: blocks, tiles of the result, stages of the source (``kernels/resize.cuh``)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

Size = tuple[int, int]

BLOCK = (32, 8)
STAGE = (32, 128)
"""Rows and columns of source that lie in shared memory at a time; 45.7 KB with the largest tile."""
_TILE_COLUMNS = 32
_TILE_ROWS = (32, 16, 8)
_ENOUGH_BLOCKS = 256  # two for each multiprocessor of a large GPU; smaller tiles read more margin. Not measured


def shared_bytes(tile: Size, stage: Size = STAGE) -> int:
    """What a block needs; see the header of ``kernels/resize.cuh``."""
    lines = stage[0] * ((stage[1] | 1) + (tile[1] | 1))
    return 4 * (lines + 3 * (stage[0] * tile[1] + tile[0] * (tile[1] | 1)))


def tile_for(canvases: Collection[Size]) -> Size:
    """Rows and columns that a block makes: the largest that gives a large GPU enough blocks for all of them together."""
    enough = (
        rows for rows in _TILE_ROWS if sum(num_tiles(c, (rows, _TILE_COLUMNS)) for c in canvases) >= _ENOUGH_BLOCKS
    )
    return next(enough, _TILE_ROWS[-1]), _TILE_COLUMNS


def num_tiles(canvas: Size, tile: Size) -> int:
    """How many tiles cover a canvas."""
    return -(-canvas[0] // tile[0]) * -(-canvas[1] // tile[1])


def arguments(tile: Size, stage: Size = STAGE) -> tuple[np.int32, ...]:
    """The last arguments of every such kernel."""
    return tuple(map(np.int32, (*tile, *stage)))
