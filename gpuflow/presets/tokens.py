"""How many placeholder tokens an image takes in the prompt, known before it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gpuflow.errors import InvalidOptions
from gpuflow.presets import tile_tokens
from gpuflow.values import shown

if TYPE_CHECKING:
    from gpuflow.presets.image import Preset
    from gpuflow.presets.plan import ImagePlan


def check_tokens(preset: Preset) -> None:
    """Hold a preset's rule of tokens to what it counts.

    Raises:
        InvalidOptions: no such rule, or what it counts has no size.
    """
    if preset.tokens and preset.tokens not in RULES:
        raise InvalidOptions(f"preset: tokens is one of {', '.join(RULES)} or empty; got {shown(preset.tokens)}")
    if preset.tokens in ("patches", "rows") and preset.patch < 1:
        raise InvalidOptions(f"preset: patch is above 0 where tokens is {preset.tokens!r}; got {preset.patch}")
    if preset.tile_tokens < 0 or (preset.tokens == "tiles" and preset.tile_tokens < 1):
        raise InvalidOptions(f"preset: tile_tokens is above 0 where tokens is 'tiles'; got {preset.tile_tokens}")


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
