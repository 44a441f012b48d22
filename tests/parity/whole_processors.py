"""Hugging Face's processors of the families that see an image whole, built from class and settings, by our names."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from PIL import Image as Picture

from tests.unit.image_files import encoded, scene

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
LLAVA = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
MODULES = {
    "BitImageProcessor": "bit",
    "CLIPImageProcessor": "clip",
    "Gemma3ImageProcessor": "gemma3",
    "Gemma4ImageProcessor": "gemma4",
    "Glm46VImageProcessor": "glm46v",
    "Glm4vImageProcessor": "glm4v",
    "LlavaImageProcessor": "llava",
    "PixtralImageProcessor": "pixtral",
    "Qwen2VLImageProcessor": "qwen2_vl",
    "Siglip2ImageProcessor": "siglip2",
    "SiglipImageProcessor": "siglip",
    "ViTImageProcessor": "vit",
}
"""Classes, and the modules of their code."""


def square(side: int) -> dict[str, Any]:
    return {"size": {"height": side, "width": side}}


def _cropped(side: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def _budget(least: int, most: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": least, "longest_edge": most}}


CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip-224": ("CLIPImageProcessor", {}),
    "clip-336": ("CLIPImageProcessor", _cropped(336)),
    **{f"siglip-{side}": ("SiglipImageProcessor", square(side)) for side in (224, 256, 384, 512)},
    **{f"siglip2-{side}": ("SiglipImageProcessor", square(side) | {"resample": 2}) for side in (224, 256, 384, 512)},
    "siglip2-naflex": ("Siglip2ImageProcessor", {}),
    "llava-1.5": ("LlavaImageProcessor", _cropped(336)),
    "llava-1.5-pad": ("LlavaImageProcessor", _cropped(336) | {"do_pad": True}),
    "qwen2-vl": ("Qwen2VLImageProcessor", _budget(3_136, 12_845_056)),
    "qwen2.5-vl": ("Qwen2VLImageProcessor", _budget(3_136, 12_845_056)),
    "qwen3-vl": ("Qwen2VLImageProcessor", _budget(65_536, 16_777_216) | HALF | {"patch_size": 16}),
    "glm4v": ("Glm4vImageProcessor", {}),
    "glm4.6v": ("Glm46VImageProcessor", _budget(12_544, 9_633_792)),
    "gemma3": ("Gemma3ImageProcessor", square(896)),
    "gemma3n": (
        "SiglipImageProcessor",
        square(768) | {"resample": 2, "do_normalize": False, "image_seq_length": 256},
    ),
    "gemma4": ("Gemma4ImageProcessor", {}),
    **{
        f"paligemma-{side}": ("SiglipImageProcessor", square(side) | {"image_seq_length": (side // 14) ** 2})
        for side in (224, 448, 896)
    },
    "pixtral": ("PixtralImageProcessor", {}),
    "mistral3": ("PixtralImageProcessor", {"size": {"longest_edge": 1_540}, "patch_size": 28}),
    "vit-224": ("ViTImageProcessor", {}),
    "bit-224": ("BitImageProcessor", {}),
    "dinov2-224": ("BitImageProcessor", {"size": {"shortest_edge": 256}, **IMAGENET}),
}
AROUND: dict[str, dict[str, Any]] = {
    "llava-1.5": LLAVA,
    "llava-1.5-pad": LLAVA,
    "mistral3": {"patch_size": 14, "spatial_merge_size": 2},
}
"""What the processor around the image processor says, where that decides something."""
SIZES = ((37, 900), (1500, 60), (29, 31), (224, 224), (333, 517), (601, 400))


def processor(name: str, *, backend: str = "torchvision") -> Any:
    """The processor of one of our names."""
    kind, settings = CHECKPOINTS[name]
    return of_class(kind, backend=backend)(**{key: _copied(value) for key, value in settings.items()})


def of_class(kind: str, *, backend: str = "torchvision") -> Any:
    """The class by torchvision or by Pillow."""
    prefix, suffix = ("", "") if backend == "torchvision" else ("pil_", "Pil")
    folder = MODULES[kind]
    module = importlib.import_module(f"transformers.models.{folder}.image_processing_{prefix}{folder}")
    return getattr(module, kind + suffix)


def settings_of(name: str) -> dict[str, Any]:
    """What is in its checkpoint's files: the image processor's settings, within those of the processor around it."""
    own = processor(name).to_dict()
    return {**AROUND[name], "image_processor": own} if name in AROUND else own


@functools.cache
def picture(height: int, width: int, mode: str = "RGB") -> Any:
    """A Pillow image; every level of transparency where its mode has any."""
    image = Picture.fromarray(scene(height, width))
    if mode == "RGBA":
        image.putalpha(Picture.linear_gradient("L").resize((width, height)))
    return image.convert(mode) if mode != "RGBA" else image


@functools.cache
def data(height: int, width: int, mode: str = "RGB") -> bytes:
    """It, as a PNG."""
    return encoded(picture(height, width, mode), "PNG", compress_level=1)


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
