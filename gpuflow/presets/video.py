"""Video presets: what a model family's video processor does with the frames that it is given, as data.

They choose no frames: ``VideoOptions`` does, and its ``sampler`` has the families' own rules. A server that has
``transformers`` process the same frames tells it ``do_sample_frames=False``, or they are thinned out twice.
"""

from __future__ import annotations

from dataclasses import replace

from gpuflow.presets.image import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD, Preset, preset_named
from gpuflow.presets.whole import QWEN2

_QWEN2 = replace(QWEN2, modality="video", beside=(), tokens="", processor="")
_QWEN3 = replace(
    _QWEN2,
    name="qwen3-vl",
    rule="volume_budget",
    mean=HALF,
    std=HALF,
    min_pixels=4_096,
    max_pixels=25_165_824,
    patch=16,
)
_GLM = replace(_QWEN2, name="glm4v", rule="volume_budget", min_pixels=112 * 112, max_pixels=28 * 28 * 2 * 30_000)
_LLAVA = Preset("llava-onevision", "fixed", mean=HALF, std=HALF, size=(384, 384), modality="video")
_CROPPED = Preset(
    "llava-next-video",
    "shortest_edge",
    mean=CLIP_MEAN,
    std=CLIP_STD,
    size=(336, 336),
    crop=(336, 336),
    modality="video",
)
# As in image.py the values are those of checkpoints, not of classes; for another checkpoint there is `Preset.from_hf`
_TABLE = (
    _QWEN2,
    replace(_QWEN2, name="qwen2.5-vl", grid_seconds=True),
    _QWEN3,
    _GLM,
    replace(_GLM, name="glm4.6v"),
    _LLAVA,
    _CROPPED,
    replace(_CROPPED, name="video-llava", size=(224, 224), crop=(224, 224)),
    Preset("internvl3", "fixed", mean=IMAGENET_MEAN, std=IMAGENET_STD, size=(448, 448), modality="video"),
    Preset("smolvlm2", "longest_edge", size=(512, 512), edge=512, mask=True, modality="video"),
)
_PRESETS = {preset.name: preset for preset in _TABLE}


def video_preset_names() -> tuple[str, ...]:
    """Every name that ``video_preset`` takes."""
    return tuple(_PRESETS)


def video_preset(name: str) -> Preset:
    """A built-in preset.

    Raises:
        InvalidOptions: no such name; lists them.
    """
    return preset_named(name, _PRESETS, "video")
