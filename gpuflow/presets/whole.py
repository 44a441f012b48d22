"""Image presets of families that see an image whole: one view, resized, cropped or padded, or cut into patches.

Where checkpoints of a family differ from its class in ``transformers``, the values are those of the checkpoints' own
preprocessor_config.json, as a comment says; for another checkpoint there is ``Preset.from_hf``.
"""

from __future__ import annotations

from dataclasses import replace

from gpuflow.presets.image import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD, Preset

_CLIP = Preset(
    "clip-224",
    "shortest_edge",
    mean=CLIP_MEAN,
    std=CLIP_STD,
    size=(224, 224),
    crop=(224, 224),
    processor="CLIPImageProcessor",
)
_SIGLIP = Preset("siglip-224", "fixed", size=(224, 224), processor="SiglipImageProcessor")
_SIGLIP2 = replace(_SIGLIP, name="siglip2-224", resample="bilinear")
_LLAVA = replace(
    _CLIP,
    name="llava-1.5",
    size=(336, 336),
    crop=(336, 336),
    tokens="tiles",
    tile_tokens=24 * 24,
    processor="LlavaImageProcessor",
)
_PALIGEMMA = replace(_SIGLIP, name="paligemma-224", tokens="tiles", tile_tokens=16 * 16)
QWEN2 = Preset(
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
    processor="Qwen2VLImageProcessor",
)
_GLM = replace(
    QWEN2,
    name="glm4v",
    rule="volume_budget",
    min_pixels=112 * 112,
    max_pixels=28 * 28 * 15_000,
    processor="Glm4vImageProcessor",
)
_GEMMA3 = Preset(
    "gemma3",
    "fixed",
    "bilinear",
    size=(896, 896),
    beside=("num_crops",),
    tokens="tiles",
    tile_tokens=256,
    processor="Gemma3ImageProcessor",
)
_PIXTRAL = Preset(
    "pixtral",
    "within_size",
    mean=CLIP_MEAN,
    std=CLIP_STD,
    size=(1_024, 1_024),
    patch=16,
    beside=("resized_size",),
    tokens="rows",
    processor="PixtralImageProcessor",
)
PRESETS = (
    _CLIP,
    # A checkpoint's size, as those of all sizes but 224 below
    replace(_CLIP, name="clip-336", size=(336, 336), crop=(336, 336)),
    _SIGLIP,
    *(replace(_SIGLIP, name=f"siglip-{side}", size=(side, side)) for side in (256, 384, 512)),
    # SigLIP 2 of one size is SigLIP's class with the checkpoints' filter
    _SIGLIP2,
    *(replace(_SIGLIP2, name=f"siglip2-{side}", size=(side, side)) for side in (256, 384, 512)),
    # The class's own values
    Preset(
        "siglip2-naflex",
        "patch_budget",
        "bilinear",
        patch=16,
        max_patches=256,
        layout="patches_last",
        beside=("patch_mask", "patch_shape"),
        processor="Siglip2ImageProcessor",
    ),
    # Size and number of tokens are the checkpoints', `square` what the class does when it is told to pad
    _LLAVA,
    replace(_LLAVA, name="llava-1.5-pad", square=True),
    # The budget and, of Qwen3-VL, patch and statistics are the checkpoints'
    QWEN2,
    replace(QWEN2, name="qwen2.5-vl"),
    replace(QWEN2, name="qwen3-vl", mean=HALF, std=HALF, min_pixels=256 * 256, max_pixels=4_096 * 4_096, patch=16),
    # Of GLM-4.1V the class's own budget, of GLM-4.6V the checkpoints'
    _GLM,
    replace(_GLM, name="glm4.6v", max_pixels=28 * 28 * 12_288, processor="Glm46VImageProcessor"),
    # The checkpoints' size and number of tokens; without pan and scan, as the class by default
    _GEMMA3,
    # The converter's values: SigLIP's class, not normalised
    Preset(
        "gemma3n",
        "fixed",
        "bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        size=(768, 768),
        normalization="scale",
        tokens="tiles",
        tile_tokens=256,
        processor="SiglipImageProcessor",
    ),
    # The class's own values, which are the checkpoints'
    Preset(
        "gemma4",
        "token_budget",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        patch=16,
        merge=3,
        max_patches=280 * 9,
        layout="patches_last",
        normalization="scale",
        beside=("patch_places", "soft_tokens"),
        tokens="patches",
        processor="Gemma4ImageProcessor",
    ),
    # The checkpoints' number of tokens
    _PALIGEMMA,
    *(
        replace(_PALIGEMMA, name=f"paligemma-{side}", size=(side, side), tile_tokens=(side // 14) ** 2)
        for side in (448, 896)
    ),
    # The class's own values; of Mistral 3 the checkpoints' size, patch and merge
    _PIXTRAL,
    replace(_PIXTRAL, name="mistral3", size=(1_540, 1_540), patch=14, merge=2),
    # The classes' own values; of DINOv2 the checkpoints' size and statistics
    Preset("vit-224", "fixed", "bilinear", size=(224, 224), processor="ViTImageProcessor"),
    replace(_CLIP, name="bit-224", processor="BitImageProcessor"),
    Preset(
        "dinov2-224",
        "shortest_edge",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        size=(256, 256),
        crop=(224, 224),
        processor="BitImageProcessor",
    ),
)
