"""Hugging Face's video processors, read into the fields of a ``Preset``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpuflow.presets.hf_values import (
    CLIP_MEAN,
    CLIP_STD,
    LANCZOS,
    Config,
    filter_name,
    pair,
    size_rule,
    statistics,
    whole_number,
)
from gpuflow.presets.hf_whole import patches


def _qwen2_video(values: Config) -> dict[str, Any]:
    fields = _patches("qwen-vl-video", values, rule="pixel_budget", least=128 * 28 * 28, most=768 * 28 * 28, patch=14)
    return fields | {"token_cap": _token_cap(values, 128_000)}


def _qwen3_video(values: Config) -> dict[str, Any]:
    fields = _patches("qwen3-vl-video", values, rule="volume_budget", least=128 * 32 * 32, most=768 * 32 * 32, patch=16)
    half = statistics(values, [0.5] * 3, [0.5] * 3)
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
    fields = patches({**defaults, **{key: value for key, value in values.items() if value is not None}})
    return fields | {"name": f"{name}-{fields['patch']}", "rule": rule, "modality": "video", "beside": (), "tokens": ""}


def _token_cap(values: Config, default: int) -> int:
    return (
        whole_number(values.get("max_video_tokens", default), "max_video_tokens")
        if values.get("cap_pixels_per_frame")
        else 0
    )


def _llava_video(values: Config) -> dict[str, Any]:
    rule, sides = size_rule(values.get("size", {"height": 384, "width": 384}), shortest=True)
    crops = bool(values.get("do_center_crop"))
    return {
        "name": f"video-{sides[0]}",
        "modality": "video",
        "rule": rule,
        "size": sides,
        "crop": pair(values.get("crop_size") or sides[0], "crop_size") if crops else None,
        "resample": filter_name(values, 3),
        **statistics(values, CLIP_MEAN, CLIP_STD),
    }


def _llava_next_video(values: Config) -> dict[str, Any]:
    edge = {"shortest_edge": 224}
    return _llava_video({"size": edge, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, **values})


def _smolvlm_video(values: Config) -> dict[str, Any]:
    sampling = values.get("video_sampling") or {}
    size = values.get("size") or sampling.get("video_size") or {"longest_edge": 4 * 364}
    square = values.get("max_image_size") or {"longest_edge": 364}
    side = whole_number(square["longest_edge"], "max_image_size")
    # the torchvision that transformers finds here has no Lanczos filter: it takes the bicubic one instead
    chosen = 3 if values.get("resample", LANCZOS) == LANCZOS else values["resample"]
    return {
        "name": f"smolvlm-video-{side}",
        "modality": "video",
        "rule": "longest_edge",
        "edge": min(4_096, whole_number(size["longest_edge"], "longest_edge")),
        "size": (side, side),
        "mask": bool(values.get("do_pad", True)),
        "resample": filter_name({"resample": chosen}, 3),
        **statistics(values, [0.5] * 3, [0.5] * 3),
    }


FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
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
PADDING_OF_BATCHES = frozenset({"SmolVLMVideoProcessor"})
LANCZOS_IS_BICUBIC = frozenset({"SmolVLMVideoProcessor"})
