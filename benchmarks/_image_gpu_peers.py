"""Other ways from JPEGs to ``pixel_values`` on a GPU: each takes a target, a batch of bytes and the device.

A server that uses them collects what comes side by side into one batch, so a batch is what they are given; pictures of
one size are transformed together, which favours them. Each keeps what it can between calls, one a thread. On ``"cpu"``
the same calls run on the libraries' CPU paths, to show that they are right before there is a GPU.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import _nvimgcodec as nv
from benchmarks._image_peers import (
    Target,
    by_hand,
    dali_transformed,
    header_size,
    patches,
    processor,
    resized,
    transformed,
)

BatchPeer = Callable[[Target, Sequence[bytes], str], list[Any]]
_kept = threading.local()


def torchvision_batched(target: Target, datas: Sequence[bytes], device: str) -> list[Any]:
    """``decode_jpeg`` of a list, by nvJPEG on a GPU, then transforms v2 there."""
    return _done(_transformed(_by_torchvision(datas, device), target), device)


def nvimgcodec_batched(target: Target, datas: Sequence[bytes], device: str) -> list[Any]:
    """nvImageCodec's batched decode into its own memory, then transforms v2."""
    import torch

    if not hasattr(_kept, "decoder"):
        _kept.decoder = nv.decoder(device)
    images = _kept.decoder.decode(nv.streams(datas), params=nv.parameters())
    pixels = [torch.as_tensor(np.asarray(image) if device == "cpu" else image, device=device) for image in images]
    return _done(_transformed([each.permute(2, 0, 1) for each in pixels], target), device)


def dali(target: Target, datas: Sequence[bytes], device: str, *, fancy: bool = False) -> list[Any]:
    """A pipeline for each size of batch: ``decoders.image(device="mixed")``, resize, normalise."""
    key = (target, len(datas), device, fancy)
    if not hasattr(_kept, "pipelines"):
        _kept.pipelines = {}
    if key not in _kept.pipelines:
        _kept.pipelines[key] = _new_pipeline(*key)
    pipeline, feed = _kept.pipelines[key]
    sizes = [np.array(resized(target, *header_size(data)), np.float32) for data in datas]
    feed.append(([np.frombuffer(data, np.uint8) for data in datas], sizes))
    (out,) = pipeline.run()
    return _done(_patched(_as_torch(out), target), device)


def hf_processor(target: Target, datas: Sequence[bytes], device: str) -> list[Any]:
    """torchvision's batched decoder, then Hugging Face's processor on the same device, given the whole list."""
    pixels = _by_torchvision(datas, device)
    values = processor(target, "torchvision")(pixels, device=device, return_tensors="pt")
    if target == "clip-336":
        return _done(list(values["pixel_values"]), device)
    return _done(list(values["pixel_values"].split([int(grid.prod()) for grid in values["image_grid_thw"]])), device)


BATCH_PEERS: dict[str, BatchPeer] = {
    "torchvision decode_jpeg, batched + v2": torchvision_batched,
    "nvImageCodec, batched + v2": nvimgcodec_batched,
    "DALI mixed": dali,
    "DALI mixed, fancy chroma": functools.partial(dali, fancy=True),
    "HF processor, torchvision decode": hf_processor,
}


def on_cores(target: Target, datas: Sequence[bytes], pool: Any) -> list[Any]:
    """torchvision's decoder and transforms on the CPU, an image a thread of the pool."""
    return list(pool.map(functools.partial(by_hand, target), datas))


def on_host(values: Any) -> Any:
    """A result of any peer as numpy."""
    return values.cpu().numpy()


def _by_torchvision(datas: Sequence[bytes], device: str) -> list[Any]:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in datas]
    planes: list[Any] = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device)
    return planes


def _transformed(planes: Sequence[Any], target: Target) -> list[Any]:
    """Together where all have one size."""
    import torch

    if len({tuple(plane.shape) for plane in planes}) == 1:
        return list(transformed(torch.stack(list(planes)), target))
    return [transformed(plane[None], target)[0] for plane in planes]


def _patched(planes: Any, target: Target) -> list[Any]:
    if target == "clip-336":
        return list(planes)
    return [patches(plane[None])[0] for plane in planes]


def _new_pipeline(target: Target, count: int, device: str, fancy: bool) -> tuple[Any, list[Any]]:
    from nvidia.dali import Pipeline, fn, types

    feed: list[Any] = []

    def following() -> tuple[list[Any], list[Any]]:
        batch: tuple[list[Any], list[Any]] = feed.pop()
        return batch

    where = {"device": "cpu"} if device == "cpu" else {"device": "mixed", "jpeg_fancy_upsampling": fancy}
    pipeline = Pipeline(
        batch_size=count, num_threads=len(os.sched_getaffinity(0)), device_id=None if device == "cpu" else 0,
        exec_async=False, exec_pipelined=False, prefetch_queue_depth=1,
    )  # fmt: skip
    with pipeline:
        data, size = fn.external_source(source=following, num_outputs=2, dtype=[types.UINT8, types.FLOAT])
        pixels = fn.decoders.image(data, output_type=types.RGB, **where)
        pipeline.set_outputs(dali_transformed(pixels, size, target))
    pipeline.build()
    return pipeline, feed


def _as_torch(out: Any) -> Any:
    """A copy of a pipeline's output, which the next run overwrites: whole where all samples have one shape."""
    import torch

    if out.is_dense_tensor():
        return torch.utils.dlpack.from_dlpack(out.as_tensor()).clone()
    return [torch.utils.dlpack.from_dlpack(out[place]).clone() for place in range(len(out))]


def _done(values: list[Any], device: str) -> list[Any]:
    """What was queued is done."""
    if device != "cpu":
        import torch

        torch.cuda.current_stream().synchronize()
    return values
