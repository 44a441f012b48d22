"""Hugging Face image processor configurations, read into the fields of a ``Preset``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpuflow.errors import InvalidOptions

CONFIG_FILE = "preprocessor_config.json"
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_CLIP_MEAN, _CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_STEPS = ("do_resize", "do_rescale", "do_normalize")
Config = Mapping[str, Any]


def preset_fields(config: Config | str | os.PathLike[str]) -> dict[str, Any]:
    """See ``Preset.from_hf``."""
    values = config if isinstance(config, Mapping) else _read(Path(config))
    kind = _kind(values)
    read = _FAMILIES.get(kind)
    if read is None:
        raise InvalidOptions(f"image_processor_type is one of {', '.join(_FAMILIES)} here; got {kind!r}")
    for step in _STEPS:
        if values.get(step) is False:
            raise InvalidOptions(f"{step}=false is not supported: a preset resizes, rescales and normalises")
    if values.get("do_pad"):
        raise InvalidOptions("do_pad=true is not supported for this processor")
    if not math.isclose(values.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        raise InvalidOptions(f"rescale_factor is 1/255 here; got {values['rescale_factor']!r}")
    return read(values)


def _kind(values: Config) -> str:
    """The processor's class, by the name that all its backends share."""
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    kind = kind.removesuffix("Fast").removesuffix("Pil")
    return kind.replace("FeatureExtractor", "ImageProcessor")


def _clip(values: Config) -> dict[str, Any]:
    return _cropping("clip", values, size=224, crop=224, mean=_CLIP_MEAN, std=_CLIP_STD)


def _bit(values: Config) -> dict[str, Any]:
    return _cropping("bit", values, size=224, crop=224, mean=_CLIP_MEAN, std=_CLIP_STD)


def _cropping(
    name: str, values: Config, *, size: int, crop: int, mean: list[float], std: list[float]
) -> dict[str, Any]:
    rule, sides = _size(values.get("size", size), shortest=True)
    cropped = _pair(values.get("crop_size", crop)) if values.get("do_center_crop", True) else None
    return {
        "name": f"{name}-{(cropped or sides)[0]}",
        "rule": rule,
        "size": sides,
        "crop": cropped,
        "resample": _resample(values, 3),
        **_statistics(values, mean, std),
    }


def _siglip(values: Config) -> dict[str, Any]:
    return _whole_picture("siglip", values, resample=3, shortest=True)


def _vit(values: Config) -> dict[str, Any]:
    return _whole_picture("vit", values, resample=2, shortest=False)


def _whole_picture(name: str, values: Config, *, resample: int, shortest: bool) -> dict[str, Any]:
    rule, sides = _size(values.get("size", {"height": 224, "width": 224}), shortest=shortest)
    return {
        "name": f"{name}-{sides[0]}",
        "rule": rule,
        "size": sides,
        "resample": _resample(values, resample),
        **_statistics(values, [0.5] * 3, [0.5] * 3),
    }


def _qwen(values: Config) -> dict[str, Any]:
    size = values.get("size") or {}
    if not isinstance(size, Mapping):
        raise InvalidOptions(f"size holds shortest_edge and longest_edge, in pixels; got {size!r}")
    patch = _whole(values.get("patch_size", 14), "patch_size")
    return {
        "name": f"qwen-vl-{patch}",
        "rule": "pixel_budget",
        "min_pixels": _whole(values.get("min_pixels") or size.get("shortest_edge", 56 * 56), "min_pixels"),
        "max_pixels": _whole(values.get("max_pixels") or size.get("longest_edge", 1280 * 28 * 28), "max_pixels"),
        "patch": patch,
        "merge": _whole(values.get("merge_size", 2), "merge_size"),
        "temporal_patch": _whole(values.get("temporal_patch_size", 2), "temporal_patch_size"),
        "layout": "patches",
        "resample": _resample(values, 3),
        **_statistics(values, _CLIP_MEAN, _CLIP_STD),
    }


_FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "CLIPImageProcessor": _clip,
    "BitImageProcessor": _bit,
    "SiglipImageProcessor": _siglip,
    "ViTImageProcessor": _vit,
    "Qwen2VLImageProcessor": _qwen,
}


def _size(size: Any, *, shortest: bool) -> tuple[str, tuple[int, int]]:
    """The size rule and its numbers; a bare number is the shortest edge, or both sides."""
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        size, shortest = size["shortest_edge"], True
    elif isinstance(size, Mapping):
        shortest = False
    return "shortest_edge" if shortest else "fixed", _pair(size)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        if set(size) != {"height", "width"}:
            raise InvalidOptions(f"a size holds height and width, or shortest_edge; got {sorted(map(str, size))}")
        return _whole(size["height"], "height"), _whole(size["width"], "width")
    return _whole(size, "size"), _whole(size, "size")


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InvalidOptions(f"{name} is a whole number above 0; got {value!r}")
    return value


def _resample(values: Config, default: int) -> str:
    number = values.get("resample", default)
    if number not in _RESAMPLE:
        raise InvalidOptions(f"resample is 2 (bilinear) or 3 (bicubic) here; got {number!r}")
    return _RESAMPLE[number]


def _statistics(values: Config, mean: list[float], std: list[float]) -> dict[str, tuple[float, ...]]:
    try:
        return {
            "mean": tuple(float(value) for value in values.get("image_mean") or mean),
            "std": tuple(float(value) for value in values.get("image_std") or std),
        }
    except (TypeError, ValueError) as error:
        raise InvalidOptions("image_mean and image_std are lists of three numbers") from error


def _read(path: Path) -> Config:
    file = path / CONFIG_FILE if path.is_dir() else path
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidOptions(f"no readable {CONFIG_FILE} at the path that was given") from error
    if not isinstance(values, dict):
        raise InvalidOptions(f"{CONFIG_FILE} holds no object; got {type(values).__name__}")
    return values
