"""From an image's size to the views that a preset makes of it: one function a rule, whole numbers throughout."""

from __future__ import annotations

from collections.abc import Callable

from gpuflow.errors import InvalidOptions
from gpuflow.presets import tiles
from gpuflow.presets.image import Preset
from gpuflow.presets.view import View, centred


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
    """The image as a whole, resized, then cropped or padded about its middle."""
    resized = preset.resized(height, width)
    canvas = preset.crop or resized
    return (View(resized, canvas, centred(resized, canvas)),)


RULES: dict[str, Callable[[Preset, int, int], tuple[View, ...]]] = {
    "fixed": _whole,
    "shortest_edge": _whole,
    "pixel_budget": _whole,
    **tiles.RULES,
}
