"""How many placeholder tokens an image takes in the prompt, known before it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gpuflow.presets import tile_tokens

if TYPE_CHECKING:
    from gpuflow.presets.image import Preset
    from gpuflow.presets.plan import ImagePlan


def num_tokens(preset: Preset, plan: ImagePlan) -> int | None:
    """The number; ``None`` where the processor alone does not decide it."""
    rule = RULES.get(preset.tokens)
    return rule(preset, plan) if rule else None


def _patches(preset: Preset, plan: ImagePlan) -> int:
    rows, columns = (side // preset.patch for side in plan.views[0].canvas)
    return rows * columns // preset.merge**2


def _rows(preset: Preset, plan: ImagePlan) -> int:
    """One more at the end of each row: a break, or the end. Source: Pixtral's processor."""
    rows, columns = (side // (preset.patch * preset.merge) for side in plan.views[0].canvas)
    return rows * (columns + 1)


def _tiles(preset: Preset, plan: ImagePlan) -> int:
    return plan.num_tiles * preset.tile_tokens


RULES: dict[str, Callable[[Preset, ImagePlan], int]] = {
    "patches": _patches,
    "rows": _rows,
    "tiles": _tiles,
    **tile_tokens.RULES,
}
