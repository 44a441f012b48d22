"""Image presets of families that cut an image into tiles, with the whole image beside them or not.

Where checkpoints of a family differ, the values are those of its own preprocessor_config.json, not of the class.
"""

from __future__ import annotations

from dataclasses import replace

from gpuflow.presets.image import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Preset

_ONEVISION = Preset(
    "llava-onevision",
    "pinpoints",
    size=(384, 384),
    grid=tuple((384 * down, 384 * across) for down in range(1, 7) for across in range(1, 7)),
    tiled=True,
    thumbnail="first",
    beside=("image_size", "num_images"),
    patch=14,
    tokens="llava_onevision",
    processor="LlavaOnevisionImageProcessor",
)
_INTERNVL = Preset(
    "internvl3",
    "closest_ratio",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    size=(448, 448),
    max_tiles=12,
    thumbnail="last",
    beside=("num_patches",),
    tokens="tiles",
    tile_tokens=256,
    processor="GotOcr2ImageProcessor",
)
_IDEFICS3 = Preset(
    "idefics3",
    "splitting",
    "lanczos",
    reference="pillow",
    passes="pillow",
    normalization="two_steps",
    edge=4 * 364,
    size=(364, 364),
    max_tiles=16,
    tiled=True,
    thumbnail="last",
    beside=("pixel_mask",),
    tokens="tiles",
    tile_tokens=169,
    processor="Idefics3ImageProcessor",
)
PRESETS: tuple[Preset, ...] = (
    Preset(
        "llava-next",
        "pinpoints",
        mean=CLIP_MEAN,
        std=CLIP_STD,
        size=(336, 336),
        grid=((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)),
        tiled=True,
        thumbnail="first",
        beside=("image_size",),
        patch=14,
        tokens="llava_next",
        processor="LlavaNextImageProcessor",
    ),
    _ONEVISION,
    replace(_ONEVISION, name="llava-onevision-multi", rule="fixed", square=True, grid=(), thumbnail=""),
    _INTERNVL,
    replace(_INTERNVL, name="aya-vision", mean=CLIP_MEAN, std=CLIP_STD, size=(364, 364), tile_tokens=169),
    Preset(
        "gemma3-pan-and-scan",
        "pan_and_scan",
        "bilinear",
        size=(896, 896),
        max_tiles=4,
        min_crop=256,
        min_ratio=1.2,
        thumbnail="first",
        beside=("num_crops",),
        tokens="tiles",
        tile_tokens=256,
        processor="Gemma3ImageProcessor",
    ),
    Preset(
        "llama4",
        "best_fit",
        "bilinear",
        normalization="bfloat16",
        size=(336, 336),
        max_tiles=16,
        thumbnail="last",
        beside=("aspect_ratios",),
        tokens="tiles",
        tile_tokens=144,
        processor="Llama4ImageProcessor",
    ),
    Preset(
        "phi-4-multimodal",
        "covering",
        "bilinear",
        pixels="image_pixel_values",
        size=(448, 448),
        max_tiles=36,
        tiled=True,
        thumbnail="overview",
        beside=("canvas_size", "attention_mask", "num_img_tokens"),
        patch=14,
        tokens="phi4",
        processor="Phi4MultimodalImageProcessor",
    ),
    _IDEFICS3,
    replace(
        _IDEFICS3, name="smolvlm", edge=4 * 384, size=(384, 384), tile_tokens=81, processor="SmolVLMImageProcessor"
    ),
    replace(
        _IDEFICS3, name="smolvlm-512", edge=4 * 512, size=(512, 512), tile_tokens=64, processor="SmolVLMImageProcessor"
    ),
)
