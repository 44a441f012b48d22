"""Hugging Face's image processors of families that cut an image into tiles, read into the fields of a ``Preset``.

What a configuration leaves out is the class's own default. How many tokens a tile takes stands in the settings of the
processor around the image processor; without them it is known of the sizes that checkpoints have, and of other sizes
there is no number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpuflow.errors import InvalidOptions
from gpuflow.presets import hf_whole
from gpuflow.presets.hf_values import (
    CLIP_MEAN,
    CLIP_STD,
    LANCZOS,
    Config,
    around,
    filter_name,
    image_tokens,
    pair,
    patch_size,
    refuse,
    statistics,
    whole_number,
)
from gpuflow.presets.tiles import MAX_TILES
from gpuflow.values import shown

_HALF = [0.5] * 3
_INTERNVL_TOKENS = {448: 256, 364: 169}
_IDEFICS3_TOKENS = {364: 169, 384: 81, 512: 64}
_NEXT_GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_ONEVISION_GRID = [[384 * down, 384 * across] for down in range(1, 7) for across in range(1, 7)]


def _llava_next(values: Config) -> dict[str, Any]:
    size = _square(values.get("size", {"shortest_edge": 224}))
    crop = values.get("crop_size", 224)
    if pair(crop, "crop_size") != size:  # it is the side of the tiles, whether they are cropped or not
        raise InvalidOptions(f"crop_size differs from size: cropped tiles are not supported; got {shown(crop)}")
    outer = around(values)
    patch = patch_size(outer, 14)
    strategy = outer.get("vision_feature_select_strategy", "default")
    more = outer.get("num_additional_image_tokens", 1) - (strategy == "default")
    return _pinpoints("llava-next", values, size, _NEXT_GRID) | {
        "beside": ("image_size",),
        "patch": patch,
        "tokens": "" if more or patch > size[0] else "llava_next",
    }


def _llava_onevision(values: Config) -> dict[str, Any]:
    refuse(values, "do_center_crop", "crop_size")
    size = _square(values.get("size", {"height": 384, "width": 384}))
    outer, own = around(values), (size[0] // 14) ** 2
    known = (
        outer.get("num_image_tokens", own) == own and outer.get("vision_aspect_ratio", "anyres_max_9") == "anyres_max_9"
    )
    return _pinpoints("llava-onevision", values, size, _ONEVISION_GRID) | {
        "beside": ("image_size", "num_images"),
        "patch": 14,
        "tokens": "llava_onevision" if known and own else "",
    }


def _pinpoints(name: str, values: Config, size: tuple[int, int], default: list[list[int]]) -> dict[str, Any]:
    return {
        "name": f"{name}-{size[0]}",
        "rule": "pinpoints",
        "size": size,
        "grid": _grid(values.get("image_grid_pinpoints", default), size[0]),
        "tiled": True,
        "thumbnail": "first",
        "resample": filter_name(values, 3),
        **statistics(values, CLIP_MEAN, CLIP_STD),
    }


def _grid(pinpoints: Any, side: int) -> tuple[tuple[int, int], ...]:
    if not isinstance(pinpoints, (list, tuple)) or not 0 < len(pinpoints) <= MAX_TILES:
        raise InvalidOptions(f"image_grid_pinpoints is a list of 1 .. {MAX_TILES} sizes; got {shown(pinpoints)}")
    grid = []
    for pinpoint in pinpoints:
        if not isinstance(pinpoint, (list, tuple)) or len(pinpoint) != 2:
            raise InvalidOptions(f"image_grid_pinpoints holds pairs of height and width; got {shown(pinpoint)}")
        height, width = (whole_number(length, "image_grid_pinpoints") for length in pinpoint)
        if height % side or width % side:
            raise InvalidOptions(f"image_grid_pinpoints are whole tiles of {side} here; got {height}x{width}")
        grid.append((height, width))
    return tuple(grid)


def _got_ocr2(values: Config) -> dict[str, Any]:
    """Of InternVL and Aya Vision, whose processors always ask for tiles, and of GOT-OCR2, which does where it says so."""
    size = pair(values.get("size", {"height": 384, "width": 384}))
    kind = around(values).get("processor_class", values.get("processor_class"))
    splits = kind != "GotOcr2Processor" or bool(values.get("crop_to_patches"))
    return {
        "name": f"internvl-{size[0]}",
        "rule": "closest_ratio",
        "size": size,
        "min_tiles": _tiles(values, "min_patches", 1) if splits else 1,
        "max_tiles": _tiles(values, "max_patches", 12) if splits else 1,
        "thumbnail": "last",
        "beside": ("num_patches",),
        **image_tokens(values, _INTERNVL_TOKENS.get(size[0], 0)),
        "resample": filter_name(values, 3),
        **statistics(values, CLIP_MEAN, CLIP_STD),
    }


def _gemma3(values: Config) -> dict[str, Any]:
    """With pan and scan or without."""
    fields = hf_whole.FAMILIES["Gemma3ImageProcessor"]({**values, "do_pan_and_scan": False})
    if not values.get("do_pan_and_scan"):
        return fields
    ratio = values.get("pan_and_scan_min_ratio_to_activate")
    if not isinstance(ratio, (int, float)) or isinstance(ratio, bool):
        raise InvalidOptions(f"do_pan_and_scan needs pan_and_scan_min_ratio_to_activate, a number; got {shown(ratio)}")
    if fields["rule"] != "fixed":
        raise InvalidOptions("size holds height and width where do_pan_and_scan is true")
    return fields | {
        "name": f"{fields['name']}-pan-and-scan",
        "rule": "pan_and_scan",
        "max_tiles": _tiles(values, "pan_and_scan_max_num_crops", None),
        "min_crop": whole_number(values.get("pan_and_scan_min_crop_size"), "pan_and_scan_min_crop_size"),
        "min_ratio": float(ratio),
        "thumbnail": "first",
    }


def _llama4(values: Config) -> dict[str, Any]:
    refuse(values, "resize_to_max_canvas")
    size, outer = _square(values.get("size", {"height": 336, "width": 336})), around(values)
    ratio = outer.get("pixel_shuffle_ratio", 0.5)
    if not isinstance(ratio, (int, float)) or not 0.01 <= ratio <= 1:
        raise InvalidOptions(f"pixel_shuffle_ratio lies in 0.01 .. 1; got {shown(ratio)}")
    return {
        "name": f"llama4-{size[0]}",
        "rule": "best_fit",
        "size": size,
        "max_tiles": _tiles(values, "max_patches", 16),
        "thumbnail": "last",
        "beside": ("aspect_ratios",),
        **image_tokens({}, (size[0] // patch_size(outer, 14)) ** 2 // round(1 / ratio**2)),
        "normalization": "bfloat16",
        "resample": filter_name(values, 2),
        **statistics(values, _HALF, _HALF),
    }


def _phi4(values: Config) -> dict[str, Any]:
    """Its ``resample`` is that of the overview; tiles are always bilinear."""
    if filter_name(values, 3) != "bicubic":
        raise InvalidOptions(f"resample is 3 (bicubic) for this processor; got {shown(values['resample'])}")
    size, patch = _square(values.get("size", {"height": 448, "width": 448})), patch_size(values, 14)
    if size[0] % patch:
        raise InvalidOptions(f"patch_size divides size; got {patch} and {size[0]}")
    return {
        "name": f"phi-4-multimodal-{size[0]}",
        "rule": "covering",
        "pixels": "image_pixel_values",
        "size": size,
        "max_tiles": _tiles(values, "dynamic_hd", 36),
        "tiled": True,
        "thumbnail": "overview",
        "beside": ("canvas_size", "attention_mask", "num_img_tokens"),
        "patch": patch,
        "tokens": "phi4",
        "resample": "bilinear",
        **statistics(values, _HALF, _HALF),
    }


def _idefics3(values: Config) -> dict[str, Any]:
    """As transformers chooses where torchvision has no Lanczos filter: the Pillow-backed one."""
    if filter_name(values, LANCZOS) != "lanczos":
        raise InvalidOptions(f"resample is 1 (Lanczos) for this processor; got {shown(values['resample'])}")
    if not values.get("do_normalize", True):
        raise InvalidOptions("do_normalize=false is not supported for this processor")
    edge, side = _longest_edge(values, "size", 4 * 364), _longest_edge(values, "max_image_size", 364)
    tokens = around(values).get("image_seq_len", _IDEFICS3_TOKENS.get(side, 0))
    return {
        "name": f"idefics3-{side}",
        "rule": "splitting",
        "edge": edge,
        "size": (side, side),
        "max_tiles": (-(-edge // side)) ** 2 if values.get("do_image_splitting", True) else 1,
        "tiled": True,
        "thumbnail": "last",
        "beside": ("pixel_mask",) if values.get("do_pad", True) else (),
        **image_tokens({}, tokens),
        "normalization": "two_steps",
        "resample": "lanczos",
        **statistics(values, _HALF, _HALF),
    }


def _longest_edge(values: Config, name: str, default: int) -> int:
    size = values.get(name, {"longest_edge": default})
    if not isinstance(size, Mapping) or set(size) != {"longest_edge"}:
        raise InvalidOptions(f"{name} holds longest_edge for this processor; got {shown(size)}")
    return whole_number(size["longest_edge"], name)


def _square(size: Any) -> tuple[int, int]:
    height, width = pair(
        size["shortest_edge"] if isinstance(size, Mapping) and set(size) == {"shortest_edge"} else size
    )
    if height != width:
        raise InvalidOptions(f"tiles are square for this processor; size is {height}x{width}")
    return height, width


def _tiles(values: Config, name: str, default: int | None) -> int:
    number = whole_number(values.get(name, default), name)
    if number > MAX_TILES:
        raise InvalidOptions(f"{name} is at most {MAX_TILES} here; got {number}")
    return number


FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "Gemma3ImageProcessor": _gemma3,
    "GotOcr2ImageProcessor": _got_ocr2,
    "Idefics3ImageProcessor": _idefics3,
    "Llama4ImageProcessor": _llama4,
    "LlavaNextImageProcessor": _llava_next,
    "LlavaOnevisionImageProcessor": _llava_onevision,
    "Phi4MultimodalImageProcessor": _phi4,
    "SmolVLMImageProcessor": _idefics3,
}
