"""From an image's size to the views that a preset makes of it: one function a rule, whole numbers throughout."""

from __future__ import annotations

from collections.abc import Callable

from gpuflow.errors import InvalidOptions
from gpuflow.presets import tiles
from gpuflow.presets.image import Preset
from gpuflow.presets.view import BLACK, Levels, View, centred


def views_of(preset: Preset, height: int, width: int) -> tuple[View, ...]:
    """The views of an image of this size, in the order of their tiles.

    Raises:
        LimitExceeded: a shape that the family refuses.
        InvalidOptions: a rule that only videos have.
    """
    rule = RULES.get(preset.rule)
    if rule is None:
        raise InvalidOptions(f"an image has no rule {preset.rule!r}")
    return rule(preset, height, width)


def _whole(preset: Preset, height: int, width: int) -> tuple[View, ...]:
    """The image as a whole, padded to a square or not, resized, then cropped or padded about its middle."""
    box = None
    if preset.square and height != width:
        side = max(height, width)
        box = (-((side - height) // 2), -((side - width) // 2), side, side)
        height = width = side
    resized = preset.resized(height, width)
    canvas = preset.crop or resized
    offset = centred(resized, canvas, reference=preset.reference)
    return (View(resized, canvas, offset, box, beyond=_mean_levels(preset) if box else BLACK),)


def _mean_levels(preset: Preset) -> Levels:
    """Source: LLaVA's processor, which rounds down."""
    red, green, blue = (max(0, min(255, int(255 * mean))) for mean in preset.mean)
    return red, green, blue


RULES: dict[str, Callable[[Preset, int, int], tuple[View, ...]]] = {
    "fixed": _whole,
    "shortest_edge": _whole,
    "within_size": _whole,
    "pixel_budget": _whole,
    "volume_budget": _whole,
    "patch_budget": _whole,
    "token_budget": _whole,
    **tiles.RULES,
}
