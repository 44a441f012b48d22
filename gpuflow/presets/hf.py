"""Hugging Face image and video processor configurations, read into the fields of a ``Preset``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from gpuflow.errors import InvalidOptions

CONFIG_FILE = "preprocessor_config.json"
VIDEO_CONFIG_FILE = "video_preprocessor_config.json"
JOINT_CONFIG_FILE = "processor_config.json"
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_LANCZOS = 1
_CLIP_MEAN, _CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_STEPS = ("do_resize", "do_rescale", "do_normalize")
Config = Mapping[str, Any]


def preset_fields(
    config: Config | str | os.PathLike[str], modality: Literal["image", "video"] | None = None
) -> dict[str, Any]:
    """See ``Preset.from_hf``."""
    values = config if isinstance(config, Mapping) else _read(Path(config), modality)
    values = values.get(f"{modality or 'image'}_processor") or values  # newer checkpoints have both in one file
    name, kind = _kind(values, modality)
    families = _VIDEO_FAMILIES if name == "video_processor_type" else _FAMILIES
    read = families.get(kind)
    if read is None:
        raise InvalidOptions(f"{name} is one of {', '.join(families)} here; got {kind!r}")
    for step in _STEPS:
        if values.get(step) is False:
            raise InvalidOptions(f"{step}=false is not supported: a preset resizes, rescales and normalises")
    if values.get("do_pad") and kind not in _PADDING_OF_BATCHES:
        raise InvalidOptions("do_pad=true is not supported for this processor")
    if not math.isclose(values.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        raise InvalidOptions(f"rescale_factor is 1/255 here; got {values['rescale_factor']!r}")
    return read(values)


def _kind(values: Config, modality: str | None) -> tuple[str, str]:
    """The key of the processor's class, and the class by the name that all its backends share."""
    if modality != "image" and (kind := values.get("video_processor_type")):
        return "video_processor_type", str(kind)
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    kind = kind.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if modality == "video":
        return "video_processor_type", kind.replace("ImageProcessor", "VideoProcessor")
    return "image_processor_type", kind


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


def _qwen2_video(values: Config) -> dict[str, Any]:
    fields = _patches("qwen-vl-video", values, rule="pixel_budget", least=128 * 28 * 28, most=768 * 28 * 28, patch=14)
    return fields | {"token_cap": _token_cap(values, 128_000)}


def _qwen3_video(values: Config) -> dict[str, Any]:
    fields = _patches("qwen3-vl-video", values, rule="volume_budget", least=128 * 32 * 32, most=768 * 32 * 32, patch=16)
    half = _statistics(values, [0.5] * 3, [0.5] * 3)
    return fields | half | {"token_cap": _token_cap(values, 768)}


def _glm4v_video(values: Config) -> dict[str, Any]:
    return _patches("glm4v-video", values, rule="volume_budget", least=112 * 112, most=28 * 28 * 2 * 30_000, patch=14)


def _patches(name: str, values: Config, *, rule: str, least: int, most: int, patch: int) -> dict[str, Any]:
    size = values.get("size") or {}
    defaults = {
        "patch_size": patch,
        "min_pixels": values.get("min_pixels") or size.get("shortest_edge", least),
        "max_pixels": values.get("max_pixels") or size.get("longest_edge", most),
    }
    fields = _qwen({**defaults, **{key: value for key, value in values.items() if value is not None}})
    return fields | {"name": f"{name}-{fields['patch']}", "rule": rule, "modality": "video"}


def _token_cap(values: Config, default: int) -> int:
    return (
        _whole(values.get("max_video_tokens", default), "max_video_tokens") if values.get("cap_pixels_per_frame") else 0
    )


def _llava_video(values: Config) -> dict[str, Any]:
    rule, sides = _size(values.get("size", {"height": 384, "width": 384}), shortest=True)
    crops = bool(values.get("do_center_crop"))
    return {
        "name": f"video-{sides[0]}",
        "modality": "video",
        "rule": rule,
        "size": sides,
        "crop": _pair(values.get("crop_size") or sides[0]) if crops else None,
        "resample": _resample(values, 3),
        **_statistics(values, _CLIP_MEAN, _CLIP_STD),
    }


def _llava_next_video(values: Config) -> dict[str, Any]:
    edge = {"shortest_edge": 224}
    return _llava_video({"size": edge, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, **values})


def _smolvlm_video(values: Config) -> dict[str, Any]:
    sampling = values.get("video_sampling") or {}
    size = values.get("size") or sampling.get("video_size") or {"longest_edge": 4 * 364}
    square = values.get("max_image_size") or {"longest_edge": 364}
    # the torchvision that transformers finds here has no Lanczos filter: it takes the bicubic one instead
    chosen = 3 if values.get("resample", _LANCZOS) == _LANCZOS else values["resample"]
    return {
        "name": f"smolvlm-video-{square['longest_edge']}",
        "modality": "video",
        "rule": "longest_edge",
        "edge": min(4_096, _whole(size["longest_edge"], "longest_edge")),
        "size": _pair(square["longest_edge"]),
        "mask": bool(values.get("do_pad", True)),
        "resample": _resample({"resample": chosen}, 3),
        **_statistics(values, [0.5] * 3, [0.5] * 3),
    }


_VIDEO_FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "Qwen2VLVideoProcessor": _qwen2_video,
    "Qwen3VLVideoProcessor": _qwen3_video,
    "Glm4vVideoProcessor": _glm4v_video,
    "Glm46VVideoProcessor": _glm4v_video,
    "LlavaOnevisionVideoProcessor": _llava_video,
    "LlavaNextVideoVideoProcessor": _llava_next_video,
    "VideoLlavaVideoProcessor": _llava_next_video,
    "InternVLVideoProcessor": _llava_video,
    "SmolVLMVideoProcessor": _smolvlm_video,
}
_PADDING_OF_BATCHES = frozenset({"SmolVLMVideoProcessor"})


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


def _read(path: Path, modality: str | None) -> Config:
    file = path
    if path.is_dir():
        names = (VIDEO_CONFIG_FILE,) if modality == "video" else ()
        found = [path / name for name in (*names, CONFIG_FILE, JOINT_CONFIG_FILE) if (path / name).is_file()]
        file = found[0] if found else path / CONFIG_FILE
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidOptions(f"no readable {CONFIG_FILE} at the path that was given") from error
    if not isinstance(values, dict):
        raise InvalidOptions(f"{CONFIG_FILE} holds no object; got {type(values).__name__}")
    return values
