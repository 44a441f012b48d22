"""Hugging Face's image processors of families that see an image whole, read into the fields of a ``Preset``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpuflow.errors import InvalidOptions
from gpuflow.presets.hf_values import (
    CLIP_MEAN,
    CLIP_STD,
    Config,
    filter_name,
    pair,
    size_rule,
    statistics,
    whole_number,
)


def _clip(values: Config) -> dict[str, Any]:
    return _cropping("clip", values, size=224, crop=224, mean=CLIP_MEAN, std=CLIP_STD)


def _bit(values: Config) -> dict[str, Any]:
    return _cropping("bit", values, size=224, crop=224, mean=CLIP_MEAN, std=CLIP_STD)


def _cropping(
    name: str, values: Config, *, size: int, crop: int, mean: list[float], std: list[float]
) -> dict[str, Any]:
    rule, sides = size_rule(values.get("size", size), shortest=True)
    cropped = pair(values.get("crop_size", crop)) if values.get("do_center_crop", True) else None
    return {
        "name": f"{name}-{(cropped or sides)[0]}",
        "rule": rule,
        "size": sides,
        "crop": cropped,
        "resample": filter_name(values, 3),
        **statistics(values, mean, std),
    }


def _siglip(values: Config) -> dict[str, Any]:
    return _whole_picture("siglip", values, resample=3, shortest=True)


def _vit(values: Config) -> dict[str, Any]:
    return _whole_picture("vit", values, resample=2, shortest=False)


def _whole_picture(name: str, values: Config, *, resample: int, shortest: bool) -> dict[str, Any]:
    rule, sides = size_rule(values.get("size", {"height": 224, "width": 224}), shortest=shortest)
    return {
        "name": f"{name}-{sides[0]}",
        "rule": rule,
        "size": sides,
        "resample": filter_name(values, resample),
        **statistics(values, [0.5] * 3, [0.5] * 3),
    }


def patches(values: Config) -> dict[str, Any]:
    """Qwen2-VL's and its descendants' image processor."""
    size = values.get("size") or {}
    if not isinstance(size, Mapping):
        raise InvalidOptions(f"size holds shortest_edge and longest_edge, in pixels; got {size!r}")
    patch = whole_number(values.get("patch_size", 14), "patch_size")
    return {
        "name": f"qwen-vl-{patch}",
        "rule": "pixel_budget",
        "min_pixels": whole_number(values.get("min_pixels") or size.get("shortest_edge", 56 * 56), "min_pixels"),
        "max_pixels": whole_number(values.get("max_pixels") or size.get("longest_edge", 1280 * 28 * 28), "max_pixels"),
        "patch": patch,
        "merge": whole_number(values.get("merge_size", 2), "merge_size"),
        "temporal_patch": whole_number(values.get("temporal_patch_size", 2), "temporal_patch_size"),
        "layout": "patches",
        "beside": ("grid",),
        "tokens": "patches",
        "resample": filter_name(values, 3),
        **statistics(values, CLIP_MEAN, CLIP_STD),
    }


FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "CLIPImageProcessor": _clip,
    "BitImageProcessor": _bit,
    "SiglipImageProcessor": _siglip,
    "ViTImageProcessor": _vit,
    "Qwen2VLImageProcessor": patches,
}
