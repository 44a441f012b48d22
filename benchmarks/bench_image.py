"""Image bytes to model tensor: gpuflow against Hugging Face's processors, torchvision by hand, and DALI on the CPU.

    python -m benchmarks.bench_image [--rounds N] [--quick] [--device cuda]

All start from encoded bytes in memory and end with CLIP's pixel_values, (1, 3, 224, 224) float32, or Qwen2.5-VL's
patches. Results are checked against Hugging Face's processor before they are timed.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._harness import Contender, Row, arguments, measure, save
from gpuflow.config import ImageOptions
from gpuflow.demo import samples
from gpuflow.flow.sync import SyncFlow

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CLOSE, SAME_FILTER = 1e-5, 0.5  # the others' resize differs from torchvision's integer one by up to 20 levels in 255


def main() -> None:
    """Run, print, save."""
    import torch

    wanted = arguments(__doc__ or "")
    torch.set_num_threads(1)  # as in a server that loads one image a core: teams of threads only fight each other
    small = [("JPEG", 500, 375)]
    large = [("JPEG", 2048, 1536), ("PNG", 500, 375), ("WEBP", 500, 375)]
    with SyncFlow(device=wanted.device) as flow:
        rows = [_clip(flow, *image) for image in (small if wanted.quick else small + large)]
        rows += [] if wanted.quick else [_qwen(flow, "JPEG", 1280, 960)]
        measured = measure(rows, rounds=wanted.rounds)
        print(
            save(
                "image",
                measured,
                out=wanted.out,
                device=flow.flow.device.name,
                note="one image at a time, one thread a contender",
            )
        )


def _clip(flow: SyncFlow, form: str, width: int, height: int) -> Row:
    data = samples.picture(form, width=width, height=height)

    def ours(engine: Any) -> Any:
        with flow.load(data, options=ImageOptions(preset="clip-224", engine=engine)) as features:
            return features.numpy().copy()

    def by_hand() -> Any:
        import torch
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms.v2 import functional as f

        pixels = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        pixels = f.resize(pixels, [224], interpolation=f.InterpolationMode.BICUBIC, antialias=True)
        pixels = f.center_crop(pixels, [224, 224]).float() / 255
        return f.normalize(pixels, list(MEAN), list(STD))[None].numpy()

    contenders = [
        Contender("gpuflow, exact", lambda: ours("exact")),
        Contender("gpuflow, DALI engine", lambda: ours("dali")),
        Contender("HF CLIPImageProcessor (torchvision)", lambda: _hugging_face(_clip_processor(), data)),
        Contender("HF CLIPImageProcessorPil", lambda: _hugging_face(_clip_processor_pil(), data)),
        Contender("torchvision v2 by hand", by_hand),
    ]
    if form == "JPEG":
        contenders.append(Contender("DALI pipeline, CPU", lambda: _dali(data, 224, int(224 * width / height))))
    wanted = _hugging_face(_clip_processor(), data)
    return Row(f"{form} {width}x{height} to CLIP (1, 3, 224, 224)", contenders, _checker(wanted))


def _qwen(flow: SyncFlow, form: str, width: int, height: int) -> Row:
    data = samples.picture(form, width=width, height=height)

    def ours() -> Any:
        with flow.load(data, options=ImageOptions(preset="qwen2.5-vl")) as features:
            return features.numpy().copy()

    contenders = [
        Contender("gpuflow, exact", ours),
        Contender("HF Qwen2VLImageProcessor (torchvision)", lambda: _hugging_face(_qwen_processor(), data)),
    ]
    wanted = _hugging_face(_qwen_processor(), data)
    return Row(f"{form} {width}x{height} to Qwen2.5-VL {wanted.shape}", contenders, _checker(wanted))


def _checker(wanted: Any) -> Callable[[str, Any], None]:
    def check(name: str, result: Any) -> None:
        assert result.shape == wanted.shape, name
        allowed = CLOSE if "exact" in name or "torchvision)" in name else SAME_FILTER
        assert float(np.abs(result - wanted).max()) < allowed, name

    return check


def _hugging_face(processor: Any, data: bytes) -> Any:
    from PIL import Image

    picture = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(processor(picture, return_tensors="pt")["pixel_values"])


@functools.cache
def _clip_processor() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor()


@functools.cache
def _clip_processor_pil() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil()


@functools.cache
def _qwen_processor() -> Any:
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": 12_845_056})


def _dali(data: bytes, height: int, width: int) -> Any:
    pipeline, feed = _dali_pipeline(height, width)
    feed.append(np.frombuffer(data, np.uint8))
    return np.asarray(pipeline.run()[0].at(0))[None]


@functools.cache
def _dali_pipeline(height: int, width: int) -> tuple[Any, list[Any]]:
    from nvidia.dali import fn, pipeline_def, types

    feed: list[Any] = []

    @pipeline_def(  # type: ignore[untyped-decorator, unused-ignore]
        batch_size=1, num_threads=1, device_id=None, exec_async=False, exec_pipelined=False, prefetch_queue_depth=1
    )
    def clip() -> Any:
        encoded = fn.external_source(source=lambda: [feed.pop()], dtype=types.UINT8)
        pixels = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        pixels = fn.resize(
            pixels, size=[height, width], interp_type=types.INTERP_CUBIC, antialias=True, subpixel_scale=False
        )
        return fn.crop_mirror_normalize(
            pixels,
            crop=(224, 224),
            mean=[255 * m for m in MEAN],
            std=[255 * s for s in STD],
            output_layout="CHW",
            rounding="truncate",
        )

    built = clip()
    built.build()
    return built, feed


if __name__ == "__main__":
    main()
