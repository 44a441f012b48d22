"""How many placeholder tokens an image in tiles takes, and which parts of its tiles Phi-4-multimodal attends to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuflow.presets.image import Preset
    from gpuflow.presets.plan import ImagePlan

ONEVISION_MAX_TILES = 9  # "anyres_max_9", the setting of its checkpoints


def _llava_next(preset: Preset, plan: ImagePlan) -> int:
    """Source: ``_get_number_of_features`` of LLaVA-NeXT's processor; the class token and its removal cancel out."""
    rows, columns = _unpadded(preset, plan)
    return _patches(preset) + rows * columns + rows


def _llava_onevision(preset: Preset, plan: ImagePlan) -> int:
    """Source: ``_get_number_of_features`` and ``replace_image_token`` of LLaVA-OneVision's processor."""
    if plan.num_tiles == 1:  # one of several images: its patches and one new line
        return _patches(preset) + 1
    rows, columns = _unpadded(preset, plan)
    ratio = math.sqrt(rows * columns / (ONEVISION_MAX_TILES * (preset.size[0] // preset.patch) ** 2))
    if ratio > 1.1:
        rows, columns = int(rows // ratio), int(columns // ratio)
    return _patches(preset) + rows * columns + rows


def _patches(preset: Preset) -> int:
    return (preset.size[0] // preset.patch) * (preset.size[1] // preset.patch)


def _unpadded(preset: Preset, plan: ImagePlan) -> tuple[int, int]:
    """Rows and columns of patches of the canvas that are no padding."""
    height, width = plan.size
    down, across = plan.views[-1].tiles
    rows, columns = down * (preset.size[0] // preset.patch), across * (preset.size[1] // preset.patch)
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    return rows, columns


def _phi4(preset: Preset, plan: ImagePlan) -> int:
    """The overview's 256, a separator, every second patch of the tiles, a new line after each row of them, and the
    overview's 16. Source: Phi-4-multimodal's processor, which has these numbers whatever the size of a tile."""
    side = preset.size[0] // preset.patch
    rows, columns = (_halved(length, side) for length in attended(plan))
    return 256 + 1 + rows * columns + rows + 16


def attended(plan: ImagePlan) -> tuple[int, int]:
    """Rows and columns of patches of the canvas that the image reaches."""
    view = plan.views[-1]
    rows, columns = (
        canvas // plan.patch - (canvas - resized) // plan.patch
        for canvas, resized in zip(view.canvas, view.resized, strict=True)
    )
    return rows, columns


def attention_mask(plan: ImagePlan) -> list[list[list[list[float]]]]:
    """``(1, tiles, rows, columns)``: 1 where the image is, in patches of each tile; the overview is all image."""
    view = plan.views[-1]
    assert view.tile is not None
    rows, columns = (side // plan.patch for side in view.tile)
    reach = attended(plan)
    tiles = [
        [
            [float(down * rows + row < reach[0] and across * columns + column < reach[1]) for column in range(columns)]
            for row in range(rows)
        ]
        for down in range(view.tiles[0])
        for across in range(view.tiles[1])
    ]
    return [[[[1.0] * columns] * rows, *tiles]]


def _halved(length: int, side: int) -> int:
    """How many of the first ``length`` patches are left of every second one of each tile."""
    whole, rest = divmod(length, side)
    return whole * -(-side // 2) + -(-rest // 2)


RULES: dict[str, Callable[[Preset, ImagePlan], int]] = {
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "phi4": _phi4,
}
