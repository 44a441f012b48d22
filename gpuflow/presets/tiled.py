"""Image presets of families that cut an image into tiles, with the whole image beside them or not."""

from __future__ import annotations

from gpuflow.presets.image import Preset

PRESETS: tuple[Preset, ...] = ()
