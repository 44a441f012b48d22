"""Other ways from the bytes of an image to CLIP's or Qwen2.5-VL's ``pixel_values``: each takes a target and the bytes.

All keep what servers keep between requests: processors, and a DALI pipeline a thread. What is named "as X does" is X's
steps written by hand from its source, not X: vLLM cannot be installed beside this environment's torch, and Dynamo's
frontend decodes in Rust, behind HTTP, with no call from Python.
"""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

Target = Literal["clip-336", "qwen2.5-vl"]
Peer = Callable[[Target, bytes], Any]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
LEVEL = 1 / 255 / min(STD)  # of the 255 an image has, as a difference of pixel_values
CROP = 336
PATCH, MERGE, REPEATS = 14, 2, 2
QWEN_PIXELS = (3_136, 12_845_056)
_kept = threading.local()


def hf_pil(target: Target, data: bytes) -> Any:
    """Pillow decodes, and Hugging Face's processor on Pillow and numpy does the rest."""
    return _processed(target, "pil", _by_pillow(data))


def hf_torchvision(target: Target, data: bytes) -> Any:
    """Pillow decodes; Hugging Face's default processor, on torchvision."""
    return _processed(target, "torchvision", _by_pillow(data))


def hf_all_torchvision(target: Target, data: bytes) -> Any:
    """torchvision decodes; the same processor."""
    return _processed(target, "torchvision", _by_torchvision(data))


def by_hand(target: Target, data: bytes) -> Any:
    """torchvision's decoder and transforms, with no processor."""
    return transformed(_by_torchvision(data)[None], target)[0]


def as_vllm(target: Target, data: bytes) -> Any:
    """The steps of vLLM's ``ImageMediaIO``: open, turn by EXIF, load, convert; then the processor that it calls."""
    from PIL import Image, ImageOps

    picture: Any = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    picture.load()
    return _processed(target, "torchvision", picture if picture.mode == "RGB" else picture.convert("RGB"))


def as_dynamo(target: Target, data: bytes) -> Any:
    """The steps of Dynamo's frontend for a JPEG: libjpeg-turbo to ``(H, W, 3)``, no EXIF; then a worker's processor."""
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
    return _processed(target, "torchvision", pixels[..., :3])


def dali(target: Target, data: bytes) -> Any:
    """A DALI pipeline on the CPU, one a thread, of one thread each; patches by torch."""
    import torch

    pipeline, feed = _pipeline(target)
    height, width = header_size(data)
    feed.append((np.frombuffer(data, np.uint8), np.array(resized(target, height, width), np.float32)))
    planar = torch.from_numpy(np.array(pipeline.run()[0].at(0)))
    return planar if target == "clip-336" else patches(planar[None])[0]


PEERS: dict[str, Peer] = {
    "HF PIL": hf_pil,
    "HF torchvision, PIL decode": hf_torchvision,
    "HF torchvision, torchvision decode": hf_all_torchvision,
    "torchvision v2 by hand": by_hand,
    "DALI pipeline, CPU": dali,
    "as vLLM does": as_vllm,
    "as Dynamo does": as_dynamo,
}
OTHER_FILTERS = frozenset({"HF PIL", "DALI pipeline, CPU"})  # what resizes otherwise than torchvision on uint8
JPEG_ONLY = frozenset({"as Dynamo does"})


def resized(target: Target, height: int, width: int) -> tuple[int, int]:
    """What an image is resized to, as the processors of the target compute it."""
    if target == "clip-336":
        short, long = sorted((height, width))
        other = int(CROP * long / short)
        return (CROP, other) if height <= width else (other, CROP)
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    low, high = QWEN_PIXELS
    size: tuple[int, int] = smart_resize(height, width, factor=PATCH * MERGE, min_pixels=low, max_pixels=high)
    return size


def transformed(pixels: Any, target: Target) -> Any:
    """``(N, 3, H, W)`` uint8 torch, on any device, to the target's ``(N, ...)`` float32 by torchvision's transforms."""
    from torchvision.transforms.v2 import functional as f

    size = list(resized(target, *pixels.shape[-2:]))
    pixels = f.resize(pixels, size, interpolation=f.InterpolationMode.BICUBIC, antialias=True)
    if target == "clip-336":
        top, left = ((side - CROP) // 2 for side in size)
        pixels = f.crop(pixels, top, left, CROP, CROP)
    scaled = f.normalize(pixels.float(), [255 * level for level in MEAN], [255 * level for level in STD])
    return scaled if target == "clip-336" else patches(scaled)


def patches(planar: Any) -> Any:
    """``(N, 3, H, W)`` to ``(N, patches, 1176)``. Source: ``Qwen2VLImageProcessor``."""
    count, _, height, width = planar.shape
    down, across = height // PATCH // MERGE, width // PATCH // MERGE
    blocks = planar[:, None].expand(-1, REPEATS, -1, -1, -1)
    blocks = blocks.reshape(count, REPEATS, 3, down, MERGE, PATCH, across, MERGE, PATCH)
    return blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(count, -1, 3 * REPEATS * PATCH**2)


def header_size(data: bytes) -> tuple[int, int]:
    """Height and width, by Pillow's lazy open."""
    from PIL import Image

    width, height = Image.open(io.BytesIO(data)).size
    return height, width


@functools.cache
def processor(target: Target, backend: Literal["pil", "torchvision"]) -> Any:
    """Hugging Face's image processor of a target, with the sizes of the checkpoints."""
    from transformers import CLIPImageProcessor, Qwen2VLImageProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    if target == "clip-336":
        kind = CLIPImageProcessorPil if backend == "pil" else CLIPImageProcessor
        return kind(size={"shortest_edge": CROP}, crop_size={"height": CROP, "width": CROP})
    kind = Qwen2VLImageProcessorPil if backend == "pil" else Qwen2VLImageProcessor
    return kind(size={"shortest_edge": QWEN_PIXELS[0], "longest_edge": QWEN_PIXELS[1]})


def _processed(target: Target, backend: Literal["pil", "torchvision"], picture: Any) -> Any:
    """``pixel_values`` of one image, without the axis of CLIP's batch."""
    values = processor(target, backend)(picture, return_tensors="pt")["pixel_values"]
    return values[0] if target == "clip-336" else values


def _by_pillow(data: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")


def _by_torchvision(data: bytes) -> Any:
    import torch
    from torchvision.io import ImageReadMode, decode_image

    return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


def _pipeline(target: Target) -> tuple[Any, list[Any]]:
    """This thread's, and the list that it takes its next input from."""
    if not hasattr(_kept, "pipelines"):
        _kept.pipelines = {}
    if target not in _kept.pipelines:
        _kept.pipelines[target] = _new_pipeline(target)
    found: tuple[Any, list[Any]] = _kept.pipelines[target]
    return found


def _new_pipeline(target: Target) -> tuple[Any, list[Any]]:
    from nvidia.dali import Pipeline, fn, types

    feed: list[Any] = []

    def following() -> list[list[Any]]:
        data, size = feed.pop()
        return [[data], [size]]

    pipeline = Pipeline(
        batch_size=1, num_threads=1, device_id=None, exec_async=False, exec_pipelined=False, prefetch_queue_depth=1
    )
    with pipeline:
        data, size = fn.external_source(source=following, num_outputs=2, dtype=[types.UINT8, types.FLOAT])
        pixels = fn.decoders.image(data, device="cpu", output_type=types.RGB)
        pipeline.set_outputs(dali_transformed(pixels, size, target))
    pipeline.build()
    return pipeline, feed


def dali_transformed(pixels: Any, size: Any, target: Target) -> Any:
    """DALI's nodes from decoded pixels to normalised planes: the arguments nearest to Hugging Face's."""
    from nvidia.dali import fn, types

    pixels = fn.resize(pixels, size=size, interp_type=types.INTERP_CUBIC, antialias=True, subpixel_scale=False)
    crop: dict[str, Any] = {"crop": (CROP, CROP), "rounding": "truncate"} if target == "clip-336" else {}
    mean, std = ([255 * level for level in levels] for levels in (MEAN, STD))
    return fn.crop_mirror_normalize(pixels, mean=mean, std=std, output_layout="CHW", **crop)
