"""The built-in image presets by name. A new family is a row of ``whole.py`` or ``tiled.py``."""

from __future__ import annotations

from gpuflow.presets import tiled, whole
from gpuflow.presets.image import Preset, preset_named

_PRESETS = {preset.name: preset for preset in (*whole.PRESETS, *tiled.PRESETS)}


def image_preset_names() -> tuple[str, ...]:
    """Every name that ``image_preset`` takes."""
    return tuple(_PRESETS)


def image_preset(name: str) -> Preset:
    """A built-in preset.

    Raises:
        InvalidOptions: no such name; lists them.
    """
    return preset_named(name, _PRESETS, "image")
