"""Which small tensors there are beside an image's pixels, and what a preset has to have for each: names, no values.

Apart from ``beside.py``, which computes what is in them, so that a preset is checked without numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gpuflow.errors import InvalidOptions
from gpuflow.values import shown

if TYPE_CHECKING:
    from gpuflow.presets.image import Preset

_PATCHES = ("patches", "patches_last")


class Kind(NamedTuple):
    """The tensor's name and type. ``layouts``: those that have it; ``tokens``: a rule of tokens is needed;
    ``overview``: tiles of patches after an overview are."""

    name: str
    dtype: str = "int64"
    layouts: tuple[str, ...] = ("image", *_PATCHES)
    tokens: bool = False
    overview: bool = False


KINDS = {
    "grid": Kind("image_grid_thw", layouts=_PATCHES),
    "image_size": Kind("image_sizes"),
    "canvas_size": Kind("image_sizes"),
    "num_images": Kind("batch_num_images"),
    "num_patches": Kind("num_patches"),
    "aspect_ratios": Kind("aspect_ratios"),
    "num_img_tokens": Kind("num_img_tokens", tokens=True),
    "attention_mask": Kind("image_attention_mask", "float32", layouts=("image",), overview=True),
    "pixel_mask": Kind("pixel_attention_mask", layouts=("image",)),
    "num_crops": Kind("num_crops"),
    "patch_mask": Kind("pixel_attention_mask", "int32", layouts=("patches_last",)),
    "patch_places": Kind("image_position_ids", layouts=("patches_last",)),
    "patch_shape": Kind("spatial_shapes", layouts=_PATCHES),
    "resized_size": Kind("image_sizes"),
    "soft_tokens": Kind("num_soft_tokens_per_image", layouts=_PATCHES),
}


def check_beside(preset: Preset) -> None:
    """Hold what a preset wants beside its pixels to what it has.

    Raises:
        InvalidOptions: no such kind, one that its layout, tokens or tiles do not give, or two tensors of one name.
    """
    for kind in preset.beside:
        if kind not in KINDS:
            raise InvalidOptions(f"preset: beside the pixels there are {', '.join(KINDS)}; got {shown(kind)}")
        _check_kind(preset, kind, KINDS[kind])
    names = [preset.pixels, *(KINDS[kind].name for kind in preset.beside)]
    if not preset.pixels or len(set(names)) < len(names):
        raise InvalidOptions(f"preset: pixels and what is beside them have names of their own; got {shown(names)}")


def _check_kind(preset: Preset, name: str, kind: Kind) -> None:
    if preset.layout not in kind.layouts:
        raise InvalidOptions(f"preset: {name} goes with layout {' or '.join(kind.layouts)}; got {preset.layout!r}")
    if kind.tokens and not preset.tokens:
        raise InvalidOptions(f"preset: {name} is the number of tokens, and tokens is empty")
    if kind.overview and not (preset.thumbnail == "overview" and 0 < preset.patch <= min(preset.size)):
        raise InvalidOptions(f"preset: {name} is of tiles of patches after an overview; got {preset.thumbnail!r}")
