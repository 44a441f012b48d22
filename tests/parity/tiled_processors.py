"""The processors of families that cut images into tiles, as their checkpoints have them, by the name of the preset."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from PIL import Image as Picture

CLIP_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
PAN_AND_SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 256,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}


def _llava_next() -> Any:
    from transformers import LlavaNextImageProcessor

    square = {"height": 336, "width": 336}
    return LlavaNextImageProcessor(size={"shortest_edge": 336}, crop_size=square, image_grid_pinpoints=CLIP_PINPOINTS)


def _llava_onevision() -> Any:
    from transformers import LlavaOnevisionImageProcessor

    return LlavaOnevisionImageProcessor(**HALF)


def _got_ocr2(side: int, **settings: Any) -> Any:
    from transformers import GotOcr2ImageProcessor

    return GotOcr2ImageProcessor(size={"height": side, "width": side}, crop_to_patches=True, **settings)


def _gemma3() -> Any:
    from transformers import Gemma3ImageProcessor

    return Gemma3ImageProcessor(size={"height": 896, "width": 896}, **PAN_AND_SCAN)


def _llama4() -> Any:
    from transformers import Llama4ImageProcessor

    return Llama4ImageProcessor()


def _phi4() -> Any:
    from transformers import Phi4MultimodalImageProcessor

    return Phi4MultimodalImageProcessor()


def _idefics3() -> Any:
    from transformers import Idefics3ImageProcessorPil

    return Idefics3ImageProcessorPil()


def _smolvlm(side: int) -> Any:
    from transformers import SmolVLMImageProcessorPil

    return SmolVLMImageProcessorPil(size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side})


PROCESSORS: dict[str, Callable[[], Any]] = {
    "llava-next": _llava_next,
    "llava-onevision": _llava_onevision,
    "llava-onevision-multi": _llava_onevision,
    "internvl3": lambda: _got_ocr2(448, **IMAGENET),
    "aya-vision": lambda: _got_ocr2(364),
    "gemma3-pan-and-scan": _gemma3,
    "llama4": _llama4,
    "phi-4-multimodal": _phi4,
    "idefics3": _idefics3,
    "smolvlm": lambda: _smolvlm(384),
    "smolvlm-512": lambda: _smolvlm(512),
}


@functools.cache
def processor(name: str) -> Any:
    """The processor that the preset of that name equals."""
    return PROCESSORS[name]()


def expected(name: str, picture: Any, **settings: Any) -> dict[str, Any]:
    """What it returns for one image; of LLaVA-OneVision's several, for the first of two."""
    if not isinstance(picture, Picture.Image):  # an array of one row would be taken for one channel
        picture = Picture.fromarray(picture)
    if name != "llava-onevision-multi":
        return dict(processor(name)(images=picture, return_tensors="pt", **settings))
    batch = processor(name)(images=[[picture, picture]], return_tensors="pt", **settings)
    return {key: batch[key][:1] for key in ("pixel_values", "image_sizes")} | {
        "batch_num_images": batch["batch_num_images"] // 2
    }
