"""Hugging Face's image processors of families that see an image whole, read into the fields of a ``Preset``.

What a configuration leaves out is the class's own default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpuflow.errors import InvalidOptions
from gpuflow.presets.hf_values import (
    CLIP_MEAN,
    CLIP_STD,
    Config,
    around,
    filter_name,
    image_tokens,
    pair,
    patch_size,
    refuse,
    size_rule,
    statistics,
    whole_number,
)
from gpuflow.values import shown

_HALF = [0.5] * 3
_EDGE = {"shortest_edge": 224}


def _clip(values: Config) -> dict[str, Any]:
    if values.get("use_square_size"):  # Kosmos-2's; the size beside it is not looked at
        values = {**values, "size": {"height": 224, "width": 224}}
    return _cropped("clip", values)


def _bit(values: Config) -> dict[str, Any]:
    return _cropped("bit", values)


def _cropped(name: str, values: Config) -> dict[str, Any]:
    defaults = {"size": _EDGE, "crop_size": 224, "do_center_crop": True, "default_to_square": False, **values}
    return _plain(name, defaults, resample=3, mean=CLIP_MEAN, std=CLIP_STD) | _llava_tokens(defaults)


def _llava(values: Config) -> dict[str, Any]:
    square = bool(values.get("do_pad"))
    unpadded = {name: value for name, value in values.items() if name not in ("do_pad", "pad_size")}
    return _cropped("llava", unpadded) | {"square": square}


def _siglip(values: Config) -> dict[str, Any]:
    fields = _plain("siglip", {"default_to_square": False, **values}, resample=3, mean=_HALF, std=_HALF)
    return fields | image_tokens(values)


def _vit(values: Config) -> dict[str, Any]:
    return _plain("vit", values, resample=2, mean=_HALF, std=_HALF)


def _plain(name: str, values: Config, *, resample: int, mean: list[float], std: list[float]) -> dict[str, Any]:
    """What the backend does by itself: resize, crop, normalise."""
    if values.get("do_pad"):
        refuse(values, "pad_size")
    shortest = not values.get("default_to_square", True)
    rule, sides = size_rule(values.get("size", {"height": 224, "width": 224}), shortest=shortest)
    crops = bool(values.get("do_center_crop"))
    crop = pair(values["crop_size"], "crop_size") if crops and "crop_size" in values else None
    if crops and crop is None:
        raise InvalidOptions("do_center_crop=true needs a crop_size")
    return {
        "name": f"{name}-{(crop or sides)[0]}",
        "rule": rule,
        "size": sides,
        "crop": crop,
        "resample": filter_name(values, resample),
        **statistics(values, mean, std),
    }


def _llava_tokens(values: Config) -> dict[str, Any]:
    """Source: LLaVA's processor. A cropped image takes as many tokens whatever its size."""
    outer = around(values)
    if "vision_feature_select_strategy" not in outer or "patch_size" not in outer or not values.get("do_center_crop"):
        return {}
    height, width = pair(values["crop_size"], "crop_size")
    patch = patch_size(outer, 14)
    more = outer.get("num_additional_image_tokens", 0) - (outer["vision_feature_select_strategy"] == "default")
    return image_tokens({}, (height // patch) * (width // patch) + more)


def _gemma3(values: Config) -> dict[str, Any]:
    refuse(values, "do_pan_and_scan")
    fields = _plain("gemma3", _without_crop(values), resample=2, mean=_HALF, std=_HALF)
    return fields | {"beside": ("num_crops",), **image_tokens(values, 256)}


def _pixtral(values: Config) -> dict[str, Any]:
    refuse(values, "do_center_crop")
    outer, size = around(values), values.get("size", {"longest_edge": 1_024})
    sides = size["longest_edge"] if isinstance(size, Mapping) and "longest_edge" in size else size
    fields = {
        "rule": "within_size",
        "size": pair(sides),
        "patch": patch_size(outer if "patch_size" in outer else values, 16),
        "merge": whole_number(outer.get("spatial_merge_size", 1), "spatial_merge_size"),
        "beside": ("resized_size",),
        "tokens": "rows",
        "resample": filter_name(values, 3),
        **statistics(values, CLIP_MEAN, CLIP_STD),
    }
    return fields | {"name": f"pixtral-{fields['size'][0]}"}


def _siglip2(values: Config) -> dict[str, Any]:
    most = whole_number(values.get("max_num_patches", 256), "max_num_patches")
    return {
        "name": f"siglip2-naflex-{most}",
        "rule": "patch_budget",
        "patch": patch_size(values, 16),
        "max_patches": most,
        "layout": "patches_last",
        "beside": ("patch_mask", "patch_shape"),
        "resample": filter_name(values, 2),
        **statistics(values, _HALF, _HALF),
    }


def _gemma4(values: Config) -> dict[str, Any]:
    tokens = whole_number(values.get("max_soft_tokens", 280), "max_soft_tokens")
    merge = whole_number(values.get("pooling_kernel_size", 3), "pooling_kernel_size")
    if tokens not in (70, 140, 280, 560, 1_120):
        raise InvalidOptions(f"max_soft_tokens is 70, 140, 280, 560 or 1120; got {tokens}")
    return {
        "name": f"gemma4-{tokens}",
        "rule": "token_budget",
        "patch": patch_size(values, 16),
        "merge": merge,
        "max_patches": tokens * merge**2,
        "layout": "patches_last",
        "beside": ("patch_places", "soft_tokens"),
        "tokens": "patches",
        "resample": filter_name(values, 3),
        **statistics({"do_normalize": False, **values}, [0.0] * 3, [1.0] * 3),
    }


def _glm(values: Config) -> dict[str, Any]:
    own = {name: value for name, value in values.items() if name not in ("min_pixels", "max_pixels")}
    defaults = {"size": {"shortest_edge": 112 * 112, "longest_edge": 28 * 28 * 15_000}, **own}
    fields = patches(defaults)
    return fields | {"name": f"glm4v-{fields['patch']}", "rule": "volume_budget"}


def patches(values: Config) -> dict[str, Any]:
    """Qwen2-VL's and its descendants' image processor."""
    least, most = _pixels(values)
    patch = patch_size(values, 14)
    return {
        "name": f"qwen-vl-{patch}",
        "rule": "pixel_budget",
        "min_pixels": least,
        "max_pixels": most,
        "patch": patch,
        "merge": whole_number(values.get("merge_size", 2), "merge_size"),
        "temporal_patch": whole_number(values.get("temporal_patch_size", 2), "temporal_patch_size"),
        "layout": "patches",
        "beside": ("grid",),
        "tokens": "patches",
        "resample": filter_name(values, 3),
        **statistics(values, CLIP_MEAN, CLIP_STD),
    }


def _pixels(values: Config) -> tuple[int, int]:
    """The budget: ``min_pixels`` and ``max_pixels`` come before what ``size`` says."""
    size = values.get("size", {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1_280})
    if not isinstance(size, Mapping) or set(size) - {"shortest_edge", "longest_edge", "min_pixels", "max_pixels"}:
        raise InvalidOptions(f"size holds shortest_edge and longest_edge, in pixels; got {shown(size)}")
    least, most = (
        whole_number(values.get(name, size.get(edge)), name)
        for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
    )
    return least, most


def _without_crop(values: Config) -> Config:
    """For classes that leave these settings aside, as their own code does."""
    return {name: value for name, value in values.items() if name not in ("do_center_crop", "do_pad")}


FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "BitImageProcessor": _bit,
    "CLIPImageProcessor": _clip,
    "Gemma3ImageProcessor": _gemma3,
    "Gemma4ImageProcessor": _gemma4,
    "Glm46VImageProcessor": _glm,
    "Glm4vImageProcessor": _glm,
    "LlavaImageProcessor": _llava,
    "PixtralImageProcessor": _pixtral,
    "Qwen2VLImageProcessor": patches,
    "Siglip2ImageProcessor": _siglip2,
    "SiglipImageProcessor": _siglip,
    "ViTImageProcessor": _vit,
}
