"""The built-in image presets as rows of words, for people."""

from __future__ import annotations

from collections.abc import Iterator

from gpuflow.presets.families import image_preset, image_preset_names
from gpuflow.presets.image import PATCH_RULES, PIXEL_RULES, Preset
from gpuflow.presets.plan import plan

HEAD = ("name", "rule", "size", "filter", "layout", "pixels", "tokens", "class of transformers")
EXAMPLE = (768, 1_024)
"""Height and width of the image that pixels and tokens are told for."""


def image_preset_lines() -> Iterator[str]:
    """A head and a line a preset, columns aligned."""
    rows = [HEAD, *(_row(image_preset(name)) for name in image_preset_names())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()


def _row(preset: Preset) -> tuple[str, ...]:
    wanted = plan(preset, *EXAMPLE)
    shape = "x".join(map(str, wanted.pixels[2]))
    tokens = "-" if wanted.num_tokens is None else str(wanted.num_tokens)
    return (
        preset.name,
        preset.rule,
        _size(preset),
        preset.resample,
        preset.layout,
        shape,
        tokens,
        preset.processor or "-",
    )


def _size(preset: Preset) -> str:
    """What the rule is told."""
    if preset.rule in PIXEL_RULES:
        return f"{preset.min_pixels}..{preset.max_pixels} px"
    if preset.rule in PATCH_RULES:
        return f"{preset.max_patches} patches"
    height, width = preset.size
    size = str(height) if preset.rule == "shortest_edge" else f"{height}x{width}"
    padded = ", padded" if preset.square else ""
    return size + padded + (", crop {}x{}".format(*preset.crop) if preset.crop else "")
