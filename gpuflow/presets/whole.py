"""Image presets of families that see an image whole: one view, resized, cropped or padded, or cut into patches.

Where checkpoints of a family differ, the values are those of its own preprocessor_config.json, not of the class.
"""

from __future__ import annotations

from dataclasses import replace

from gpuflow.presets.image import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD, Preset

_CLIP = Preset("clip-224", "shortest_edge", mean=CLIP_MEAN, std=CLIP_STD, size=(224, 224), crop=(224, 224))
_SIGLIP = Preset("siglip-224", "fixed", size=(224, 224))
_QWEN = Preset(
    "qwen2-vl",
    "pixel_budget",
    mean=CLIP_MEAN,
    std=CLIP_STD,
    min_pixels=4 * 28 * 28,
    max_pixels=16_384 * 28 * 28,
    patch=14,
    merge=2,
    temporal_patch=2,
    layout="patches",
    beside=("grid",),
    tokens="patches",
)
PRESETS = (
    _CLIP,
    replace(_CLIP, name="clip-336", size=(336, 336), crop=(336, 336), patch=14, tokens="patches"),
    _SIGLIP,
    replace(_SIGLIP, name="siglip-384", size=(384, 384)),
    _QWEN,
    replace(_QWEN, name="qwen2.5-vl"),
    replace(_QWEN, name="qwen3-vl", mean=HALF, std=HALF, min_pixels=256 * 256, max_pixels=4_096 * 4_096, patch=16),
    Preset("vit-224", "fixed", "bilinear", size=(224, 224)),
    Preset(
        "dinov2-224",
        "shortest_edge",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        size=(256, 256),
        crop=(224, 224),
        patch=14,
        tokens="patches",
    ),
)
