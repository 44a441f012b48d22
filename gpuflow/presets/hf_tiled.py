"""Hugging Face's image processors of families that cut an image into tiles, read into the fields of a ``Preset``.

How many tokens a tile takes stands in the files of the model, not of its image processor: it is known of the sizes that
checkpoints have, and of others there is no number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpuflow.errors import InvalidOptions
from gpuflow.presets.hf_values import CLIP_MEAN, CLIP_STD, LANCZOS, Config, filter_name, pair, statistics, whole_number
from gpuflow.presets.tiles import MAX_TILES

_HALF = [0.5] * 3
_CLIP_PATCH = 14
_TILE_TOKENS = {
    "internvl": {448: 256, 364: 169},
    "gemma3": {896: 256},
    "llama4": {336: 144},
    "idefics3": {364: 169, 384: 81, 512: 64},
}


def _llava_next(values: Config) -> dict[str, Any]:
    size = _square(values.get("size", {"shortest_edge": 224}))
    crop = values.get("crop_size", size[0])
    if values.get("do_center_crop", True) and crop is not None and pair(crop) != size:
        raise InvalidOptions(
            f"crop_size differs from size: tiles would be cropped, which is not supported; got {crop!r}"
        )
    default = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    return _pinpoints("llava-next", values, size, default) | {
        "beside": ("image_size",),
        "tokens": "llava_next" if size[0] % _CLIP_PATCH == 0 else "",
    }


def _llava_onevision(values: Config) -> dict[str, Any]:
    size = _square(values.get("size", {"height": 384, "width": 384}))
    if values.get("do_center_crop") or values.get("crop_size"):
        raise InvalidOptions("do_center_crop is not supported for this processor")
    default = [[384 * down, 384 * across] for down in range(1, 7) for across in range(1, 7)]
    return _pinpoints("llava-onevision", values, size, default) | {
        "beside": ("image_size", "num_images"),
        "tokens": "llava_onevision" if size[0] >= _CLIP_PATCH else "",
    }


def _pinpoints(name: str, values: Config, size: tuple[int, int], default: list[list[int]]) -> dict[str, Any]:
    return {
        "name": f"{name}-{size[0]}",
        "rule": "pinpoints",
        "size": size,
        "grid": _grid(values.get("image_grid_pinpoints", default), size[0]),
        "tiled": True,
        "thumbnail": "first",
        "patch": _CLIP_PATCH,
        "resample": filter_name(values, 3),
        **statistics(values, CLIP_MEAN, CLIP_STD),
    }


def _grid(pinpoints: Any, side: int) -> tuple[tuple[int, int], ...]:
    if not isinstance(pinpoints, (list, tuple)) or not 0 < len(pinpoints) <= MAX_TILES:
        raise InvalidOptions(f"image_grid_pinpoints is a list of 1 .. {MAX_TILES} sizes")
    grid = []
    for pinpoint in pinpoints:
        if not isinstance(pinpoint, (list, tuple)) or len(pinpoint) != 2:
            raise InvalidOptions(f"image_grid_pinpoints holds pairs of height and width; got {str(pinpoint)[:40]}")
        height, width = (whole_number(length, "image_grid_pinpoints") for length in pinpoint)
        if height % side or width % side:
            raise InvalidOptions(f"image_grid_pinpoints are whole tiles of {side} here; got {height}x{width}")
        grid.append((height, width))
    return tuple(grid)


def _got_ocr2(values: Config) -> dict[str, Any]:
    """Of InternVL and Aya Vision, whose processors always ask for tiles, and of GOT-OCR2, which does where it says so."""
    size = pair(values.get("size", {"height": 384, "width": 384}))
    splits = values.get("processor_class") != "GotOcr2Processor" or bool(values.get("crop_to_patches"))
    return {
        "name": f"internvl-{size[0]}",
        "rule": "closest_ratio",
        "size": size,
        "min_tiles": _tiles(values, "min_patches", 1) if splits else 1,
        "max_tiles": _tiles(values, "max_patches", 12) if splits else 1,
        "thumbnail": "last",
        "beside": ("num_patches",),
        **_tokens("internvl", size[0]),
        "resample": filter_name(values, 3),
        **statistics(values, CLIP_MEAN, CLIP_STD),
    }


def _gemma3(values: Config) -> dict[str, Any]:
    """Without pan and scan it has no crops, and says so."""
    size = pair(values.get("size", {"height": 224, "width": 224}))
    fields = {
        "name": f"gemma3-{size[0]}",
        "rule": "fixed",
        "size": size,
        "beside": ("num_crops",),
        **_tokens("gemma3", size[0]),
        "resample": filter_name(values, 2),
        **statistics(values, _HALF, _HALF),
    }
    if not values.get("do_pan_and_scan"):
        return fields
    ratio = values.get("pan_and_scan_min_ratio_to_activate")
    if not isinstance(ratio, (int, float)) or isinstance(ratio, bool):
        raise InvalidOptions(f"pan_and_scan_min_ratio_to_activate is a number; got {ratio!r}")
    return fields | {
        "rule": "pan_and_scan",
        "max_tiles": _tiles(values, "pan_and_scan_max_num_crops", 0),
        "min_crop": whole_number(values.get("pan_and_scan_min_crop_size"), "pan_and_scan_min_crop_size"),
        "min_ratio": float(ratio),
        "thumbnail": "first",
    }


def _llama4(values: Config) -> dict[str, Any]:
    if values.get("resize_to_max_canvas"):
        raise InvalidOptions("resize_to_max_canvas=true is not supported: an image is not enlarged beyond one tile")
    size = _square(values.get("size", {"height": 336, "width": 336}))
    return {
        "name": f"llama4-{size[0]}",
        "rule": "best_fit",
        "size": size,
        "max_tiles": _tiles(values, "max_patches", 16),
        "thumbnail": "last",
        "beside": ("aspect_ratios",),
        **_tokens("llama4", size[0]),
        "normalization": "bfloat16",
        "resample": filter_name(values, 2),
        **statistics(values, _HALF, _HALF),
    }


def _phi4(values: Config) -> dict[str, Any]:
    """Its ``resample`` is that of the overview; tiles are always bilinear."""
    if values.get("resample", 3) != 3:
        raise InvalidOptions(f"resample is 3 (bicubic) for this processor; got {values['resample']!r}")
    size = _square(values.get("size", {"height": 448, "width": 448}))
    patch = whole_number(values.get("patch_size", 14), "patch_size")
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
    if values.get("resample", LANCZOS) != LANCZOS:
        raise InvalidOptions(f"resample is 1 (Lanczos) for this processor; got {values['resample']!r}")
    edge = _longest_edge(values, "size", 4 * 364)
    side = _longest_edge(values, "max_image_size", 364)
    splits = values.get("do_image_splitting", True) is not False
    return {
        "name": f"idefics3-{side}",
        "rule": "splitting",
        "edge": edge,
        "size": (side, side),
        "max_tiles": (-(-edge // side)) ** 2 if splits else 1,
        "tiled": True,
        "thumbnail": "last",
        "beside": ("pixel_mask",) if values.get("do_pad", True) else (),
        **_tokens("idefics3", side),
        "reference": "pillow",
        "passes": "pillow",
        "normalization": "two_steps",
        "resample": "lanczos",
        **statistics(values, _HALF, _HALF),
    }


def _longest_edge(values: Config, name: str, default: int) -> int:
    size = values.get(name, {"longest_edge": default})
    if not isinstance(size, Mapping) or set(size) != {"longest_edge"}:
        raise InvalidOptions(f"{name} holds longest_edge for this processor; got {str(size)[:40]}")
    return whole_number(size["longest_edge"], name)


def _square(size: Any) -> tuple[int, int]:
    edge = size["shortest_edge"] if isinstance(size, Mapping) and set(size) == {"shortest_edge"} else size
    height, width = pair(edge)
    if height != width:
        raise InvalidOptions(f"tiles are square for this processor; size is {height}x{width}")
    return height, width


def _tiles(values: Config, name: str, default: int) -> int:
    number = whole_number(values.get(name, default), name)
    if number > MAX_TILES:
        raise InvalidOptions(f"{name} is at most {MAX_TILES} here; got {number}")
    return number


def _tokens(family: str, side: int) -> dict[str, Any]:
    known = _TILE_TOKENS[family].get(side, 0)
    return {"tokens": "each_tile" if known else "", "tile_tokens": known}


FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "LlavaNextImageProcessor": _llava_next,
    "LlavaOnevisionImageProcessor": _llava_onevision,
    "GotOcr2ImageProcessor": _got_ocr2,
    "Gemma3ImageProcessor": _gemma3,
    "Llama4ImageProcessor": _llama4,
    "Phi4MultimodalImageProcessor": _phi4,
    "Idefics3ImageProcessor": _idefics3,
    "SmolVLMImageProcessor": _idefics3,
}
PADDING_OF_BATCHES = frozenset(
    {"LlavaNextImageProcessor", "LlavaOnevisionImageProcessor", "Idefics3ImageProcessor", "SmolVLMImageProcessor"}
)
